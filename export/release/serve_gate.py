"""The serve gate of a release that is about to be published: `python -m deploy prove`, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from cli.progress import Progress
from contracts import layout
from contracts.manifest import Manifest
from export.errors import RefusedError

NOT_YET = "not yet served"
_NO_SERVER = 3  # what `deploy prove` exits with where no server can be started
_ERROR = "error: "


@dataclass(frozen=True)
class Served:
    """How the gate went: the Triton that served the release, or why there was none."""

    triton: str | None  # "2.51.0"; None: not yet served
    told: str  # for people


def serve(staged: Path, say: Callable[[str], None]) -> Served:
    """Let a Triton load a version that is staged, and nothing beside it, and answer its golden requests.

    Args:
        say: Is told what takes long, such as making the server's environment for the first time.

    Raises:
        RefusedError: it does not load, or does not answer as it was proven, with what Triton says.
    """
    command = [sys.executable, "-m", "deploy", "prove", str(staged), "--json"]
    with subprocess.Popen(
        command,
        cwd=layout.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # they were asked for
        try:
            error = _listen(process.stderr, say)
            output = process.stdout.read()
        except BaseException:  # Ctrl-C reaches it, too; a SIGTERM to this process does not
            process.terminate()
            raise
    if process.returncode == 0:
        verdict = json.loads(output)
        return Served(verdict["triton"], _told(verdict))
    if process.returncode == _NO_SERVER:
        return Served(None, f"{NOT_YET}: {error.splitlines()[0] if error else 'no server starts here'}")
    raise RefusedError("the release is not served as it was proven; nothing was published", note=error)


def passed(release: Manifest, directory: Path, progress: Progress) -> Manifest:
    """Hold a staged version to the gate; return `release` with the Triton that served it, if there was one.

    Raises:
        RefusedError: as `serve`.
    """
    with progress.step("serve gate") as done:
        served = serve(directory, done.say)
        done(served.told, skipped=served.triton is None)
    return replace(release, served=served.triton)


def _listen(lines: IO[str], say: Callable[[str], None]) -> str:
    """Pass on what the gate says, and return the error it ends with."""
    error: list[str] = []
    for line in lines:
        if error or line.startswith((_ERROR, "Traceback ")):
            error.append(line)
        else:
            say(line.rstrip())
    return "".join(error).removeprefix(_ERROR).strip()


def _told(verdict: Mapping[str, Any]) -> str:
    """Say what was looked at: "Triton 2.51.0: alone 36, in full batches 4, …"."""
    checks: Sequence[Mapping[str, Any]] = verdict["checks"]
    known = [check for check in checks if check["name"] not in ("loads", "unloads")]
    asked = [f"{check['name']} {check['count']}" for check in known if not _is_of_ensembles(check)]
    if of_ensembles := [check["count"] for check in known if check["name"] == "alone" and _is_of_ensembles(check)]:
        asked.append(f"as an ensemble {of_ensembles[0]}")
    unasked = "".join(f"; {model} has no golden requests" for model in verdict["unasked"])
    return f"Triton {verdict['triton']}: {', '.join(asked)}{unasked}"


def _is_of_ensembles(check: Mapping[str, Any]) -> bool:
    return str(check["device"]).endswith("-ensemble")
