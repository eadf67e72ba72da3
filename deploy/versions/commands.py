"""What `python -m deploy reload`, `rollback`, `promote` and `arm` do; each returns the exit code."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from contracts import layout
from deploy.errors import NotRunningError, RepositoryError
from deploy.running import status
from deploy.running.status import EXIT_LEFT_OUT
from deploy.served.arms import Arm
from deploy.triton import state
from deploy.versions import choosing, reloading
from deploy.versions.arm import put_up, take_away
from deploy.versions.change import VersionChange, summary


def reload(options: argparse.Namespace) -> int:
    """Serve what is on disk now; return 3 if it does, but for a model that failed before and is still left out."""
    running = state.running()
    if running is None:
        raise NotRunningError("no server is up", hint="python -m deploy up loads what is on disk")
    changes = reloading.reload(running, options.models, _say(options))
    left_out = [group for group in status.look(running).left_out if group.failed]
    if options.json:
        found = {"changes": [asdict(change) for change in changes], "left_out": [asdict(group) for group in left_out]}
        print(json.dumps(found))
    else:
        print(summary(changes))
    return EXIT_LEFT_OUT if left_out and not options.models else 0


def rollback(options: argparse.Namespace) -> int:
    """Serve an older version again."""
    running, root = _running_over(options.repository)
    return _changed(choosing.rollback(running, root, options.model, options.to, _say(options)), options)


def promote(options: argparse.Namespace) -> int:
    """Make a version the one that answers."""
    running, root = _running_over(options.repository)
    return _changed(choosing.promote(running, root, options.model, options.version, _say(options)), options)


def arm(options: argparse.Namespace) -> int:
    """Let a release stand beside the one that serves, take it away, or list those that do."""
    running = state.running()
    if running is None:
        raise NotRunningError("no server is up", hint="python -m deploy up, which begins without arms")
    root, say = Path(running.repository), _say(options)
    if options.model is None:
        return _list_arms(running, as_json=options.json)
    if options.remove:
        gone = take_away(running, root, options.model, options.version, say)
        return _told(gone, f"{gone.network}: release {gone.version} stands beside no more", "status", options.json)
    if options.version is None:
        raise RepositoryError(f"which release of {options.model}?", hint="python -m export list")
    made = put_up(running, root, options.model, options.version, say)
    text = f"{made.network}: release {made.version} stands beside the one that serves, as {', '.join(made.names)}"
    return _told(made, text, f"arm {made.network} {made.version} --remove   (takes it away)", options.json)


def _list_arms(running: state.Running, *, as_json: bool) -> int:
    """List the arms, those that fell as well; return 3 if one did."""
    found = status.look(running)
    fallen = [group for group in found.left_out if group.is_arm]
    if as_json:
        print(json.dumps([status.arm_as_json(arm) for arm in found.arms]))
    else:
        for arm in found.arms:
            print(f"{arm.network}: release {arm.version} as {', '.join(arm.names)}")
        print("\n".join(map(str, fallen)) if fallen or found.arms else "No release stands beside the one that serves.")
    return EXIT_LEFT_OUT if fallen else 0


def _say(options: argparse.Namespace) -> Callable[[str], None]:
    """Return what tells people how far it is: on stderr where a machine reads stdout."""
    return partial(print, file=sys.stderr if options.json else sys.stdout)


def _changed(change: VersionChange, options: argparse.Namespace) -> int:
    print(json.dumps(asdict(change)) if options.json else summary([change]))
    return 0


def _told(arm: Arm, text: str, following: str, as_json: bool) -> int:
    print(json.dumps(status.arm_as_json(arm)) if as_json else f"{text}\nNext: python -m deploy {following}")
    return 0


def _running_over(repository: Path | None) -> tuple[state.Running | None, Path]:
    """Return the server that serves `repository`, if one does, and that repository; by default a running server's."""
    running = state.running()
    if repository is None:
        root = Path(running.repository) if running else layout.model_repository()
    else:
        root = repository.resolve()
    return (running if running and Path(running.repository) == root else None), root
