"""What `python -m deploy reload`, `rollback` and `promote` do; each returns the exit code."""

import argparse
from pathlib import Path

from contracts import layout
from deploy.errors import NotRunningError
from deploy.running import status
from deploy.running.status import EXIT_LEFT_OUT
from deploy.triton import state
from deploy.versions import choosing, reloading
from deploy.versions.change import summary


def reload(options: argparse.Namespace) -> int:
    """Serve what is on disk now; return 3 if it does, but for a model that failed before and is still left out."""
    running = state.running()
    if running is None:
        raise NotRunningError("no server is up", hint="python -m deploy up loads what is on disk")
    print(summary(reloading.reload(running, options.models, print)))
    left_out = any(group.failed for group in status.look(running).left_out)
    return EXIT_LEFT_OUT if left_out and not options.models else 0


def rollback(options: argparse.Namespace) -> int:
    """Serve an older version again."""
    running, root = _running_over(options.repository)
    print(summary([choosing.rollback(running, root, options.model, options.to)]))
    return 0


def promote(options: argparse.Namespace) -> int:
    """Make a version the one that answers."""
    running, root = _running_over(options.repository)
    print(summary([choosing.promote(running, root, options.model, options.version)]))
    return 0


def _running_over(repository: Path | None) -> tuple[state.Running | None, Path]:
    """Return the server that serves `repository`, if one does, and that repository; by default a running server's."""
    running = state.running()
    if repository is None:
        root = Path(running.repository) if running else layout.model_repository()
    else:
        root = repository.resolve()
    return (running if running and Path(running.repository) == root else None), root
