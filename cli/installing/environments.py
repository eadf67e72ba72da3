"""Virtual environments that are made quietly: a bar on a terminal, and pip's own words only where it fails.

    python3 -m cli.installing.environments --either torch-cpu.lock torch.lock -- .venv requirements.lock [MORE …]

It is of the Python that runs this: one of another is made anew. `make setup` runs this before anything is installed:
it needs the standard library and nothing else.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cli.run import run_command_line
from cli.terminal import plain

# In the environment. The first says that all of the lock is in it, and is as old as the run that put it there, so
# that `make` sees which of the two is newer. It is called the second until then.
MADE, HALF_MADE = ".made-from-lock", ".half-made"
LOG = "install.log"  # what pip said the last time

# An environment is of a version and of an installation: after either has changed, what was compiled may not load.
_WHICH = (
    "import os, sys; print('Python %d.%d, ' % sys.version_info[:2] + "
    "os.path.realpath(getattr(sys, '_base_executable', sys.executable)))"
)
_SHOWN_LINES, _SHOWN_ERRORS = 20, 8
_ERROR = re.compile(r"\berror: ", re.IGNORECASE)  # pip's own, and those of a compiler
_BAR_WIDTH = 24
_REDRAWN_S = 0.2
_GRACE_S = 30  # for what was interrupted to remove its temporary files
_FOUND = re.compile(r"^(?:Collecting|Processing|Requirement already satisfied:) ", re.MULTILINE)
_INSTALLING = re.compile(r"^Installing collected packages: (.*)$", re.MULTILINE)
_EVERY_OTHER = re.compile(r" *Expected +or ")  # a hash that a file may have: of some packages a hundred
_AGAIN = "then run the same command again"
# {what pip says: what to do}; the first that is found.
_HINTS = (
    (
        re.compile("DO NOT MATCH THE HASHES"),
        "a file is not the one that the lock names. Is the lock as it was committed (git diff)? Then the index has "
        "another file under that name (pip config list), or somebody has changed it: do not install it",
    ),
    (re.compile(r"No space left on device|Disk quota exceeded"), f"make room on the disk, {_AGAIN}"),
    (
        re.compile(r"Unknown compiler|error: command '|Python\.h: No such file|Failed building wheel"),
        f"a package is built here, for which the index has no wheel: sudo apt-get install g++ python3-dev, {_AGAIN}",
    ),
    (re.compile(""), "is the package index reachable, and is there room on the disk? Then run the same command again"),
)


class InstallError(Exception):
    """An environment could not be made, or not filled.

    Attributes:
        note: The last lines that pip said, and where all of them are.
        hint: What to do.
    """

    def __init__(self, fact: str, *, note: str, hint: str) -> None:
        super().__init__(f"{fact}\nNote: {note}\nHint: {hint}")
        self.note, self.hint = note, hint


class NothingFoundError(InstallError):
    """pip found nothing of what it looked for first, wherever it was told to look."""


def main() -> int:
    """Make the environment that the command line names."""
    parser = argparse.ArgumentParser(prog="python3 -m cli.installing.environments", description=__doc__)
    parser.add_argument("home", type=Path, help="the environment's directory")
    parser.add_argument("lock", type=Path, help="the file with what goes into it")
    parser.add_argument(
        "--either",
        nargs="+",
        type=Path,
        default=[],
        metavar="LOCK",
        help="more of it: the first of these that pip finds",
    )
    parser.add_argument("pip", nargs="*", help="more arguments for `pip install`")
    options = parser.parse_args()
    if (other := _another_python(options.home)) is not None:
        print(f"Making the environment in {options.home} anew, for {_this_python()} (a few minutes)", flush=True)
        print(f"  it was made for {other}", flush=True)
    elif (options.home / MADE).exists():
        print(f"Bringing the environment in {options.home} to what {options.lock} says now", flush=True)
    else:
        print(f"Making the environment in {options.home} from {options.lock} (once; a few minutes)", flush=True)
    make(options.home, options.lock, options.pip, either=options.either)
    return 0


def make(home: Path, lock: Path, arguments: Sequence[str] = (), *, either: Sequence[Path] = ()) -> None:
    """Make the environment `home`, or bring one that is there to what `lock` says.

    What an interrupted run left is removed first: pip takes a package for installed whose files are not all there. So
    is one of another Python.

    Args:
        lock: The file with all that goes into it, and with the hashes of their files: pip takes nothing else.
        arguments: More for `pip install`.
        either: Locks of one package in builds that not every index has: the first that pip finds is installed, too.

    Raises:
        InstallError: with what pip said at last.
    """
    made, half_made, log = home / MADE, home / HALF_MADE, home / LOG
    if half_made.exists() or _another_python(home) is not None:
        _empty(home, but=half_made)
    home.mkdir(parents=True, exist_ok=True)
    half_made.touch()
    made.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    try:
        if not (home / "pyvenv.cfg").exists():
            venv.create(home, symlinks=True, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise InstallError(
            f"{sys.executable} could not make an environment in {home}",
            note=(error.output or b"").decode(errors="replace").strip() or str(error),
            hint="name another Python 3.11 or later: make setup PYTHON=/path/to/python3",
        ) from error
    python = home / "bin" / "python"
    # The lock has all that its packages need. pip would byte-compile on one core, and its packages' tests, too.
    options = ["--require-hashes", "--no-deps", "--no-compile", *arguments]
    try:
        _install([python, "-m", "pip"], lock, either, options, home, log)
    except InstallError:
        if not _INSTALLING.search(log.read_text(errors="replace")):
            half_made.unlink()  # nothing was touched: what is there stays, and the next run goes on from it
        raise
    _byte_compile(home, python, log)
    half_made.rename(made)


def pip_install(
    pip: Sequence[str | Path], lock: Path, arguments: Sequence[str | Path] = (), *, home: Path, log: Path
) -> None:
    """Run `pip install ARGUMENTS --requirement LOCK`, with a bar on stderr where that is a terminal.

    Args:
        pip: How to call the pip that installs into `home`, e.g. ["python", "-m", "pip"].
        lock: The file with what to install.
        arguments: More for `pip install`.
        home: The environment.
        log: Gets what pip says, behind what it has.

    Raises:
        InstallError: pip failed, after it had tried again by itself what may pass; NothingFoundError: at once.
    """
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    pinned = lock.read_text().count("==")
    with log.open("a") as stream:
        said_before, there_before = stream.tell(), _packages(home)
        with (
            _bar() as show,
            _interruptible([*pip, "install", *options, *arguments, "--requirement", lock], stream) as p,
        ):
            while p.poll() is None:
                show(_progress(log.read_text(errors="replace")[said_before:], _packages(home) - there_before, pinned))
                time.sleep(_REDRAWN_S)
    if p.returncode:
        said = log.read_text(errors="replace")[said_before:]
        kind = InstallError if _FOUND.search(said) else NothingFoundError
        raise kind(
            f"pip could not install {lock} into {home}",
            note="\n  ".join([f"all that it said is in {log}, at last:", *_at_last(said)]),
            hint=next(hint for seen, hint in _HINTS if seen.search(said)),
        )


def _install(
    pip: Sequence[str | Path], lock: Path, either: Sequence[Path], options: Sequence[str], home: Path, log: Path
) -> None:
    """Install `lock` and the first of `either` that pip finds: what is named first it looks for before all else."""
    for first in either[:-1]:
        with suppress(NothingFoundError):
            return pip_install(pip, lock, ["--requirement", str(first), *options], home=home, log=log)
    last = ["--requirement", str(either[-1])] if either else []
    return pip_install(pip, lock, [*last, *options], home=home, log=log)


def _byte_compile(home: Path, python: Path, log: Path) -> None:
    """Compile what is installed on all cores. What does not compile, as some templates, is never imported."""
    compile_all: list[str | Path] = [python, "-m", "compileall", "-qq", "-j", "0", "-x", "/tests/"]
    packages = home.glob("lib/*/site-packages")
    with log.open("a") as stream, _bar() as show, _interruptible([*compile_all, *packages], stream) as process:
        show("byte-compiling")
        process.wait()


@contextmanager
def _interruptible(command: Sequence[str | Path], output: TextIO) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a command that is interrupted when we are: once, whoever was told, so that it removes its temporary files.

    It has ended when this does: on Ctrl-C Popen alone waits a quarter of a second for it and goes on without it.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        process_group=0,  # the terminal's Ctrl-C does not reach it, ours does
    ) as process:
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)  # `pip --python` has a child
            process.wait(_GRACE_S)
            return


def _empty(home: Path, but: Path) -> None:
    for path in home.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != but:
            path.unlink()


def _another_python(home: Path) -> str | None:
    """Say which Python an environment is of; None where that is ours, or there is none yet."""
    if not (home / "pyvenv.cfg").exists():
        return None
    try:
        command = [str(home / "bin" / "python"), "-I", "-c", _WHICH]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "one that is gone"
    return None if found == _this_python() else found


def _this_python() -> str:
    return subprocess.run(
        [sys.executable, "-I", "-c", _WHICH], capture_output=True, text=True, check=True
    ).stdout.strip()


def _packages(home: Path) -> set[str]:
    return {path.name for path in home.glob("lib/*/site-packages/*.dist-info")}


def _progress(said: str, new: set[str], pinned: int) -> str:
    """Draw a bar with what pip is at, how many packages that is done for, and of how many."""
    if installing := _INSTALLING.search(said):
        what, done, total = "installed", len(new), installing[1].count(",") + 1
    else:
        what, done, total = "found", len(_FOUND.findall(said)), pinned
    done = min(done, total)
    filled = _BAR_WIDTH * done // total if total else 0
    return f"{'━' * filled}{'─' * (_BAR_WIDTH - filled)} {done} of {total} packages {what}"


def _at_last(said: str) -> list[str]:
    """Return the last lines that pip said, and before them its errors that are further up: a build has many lines."""
    lines = [line for line in said.strip().splitlines() if not _EVERY_OTHER.match(line)]
    above = [line.strip() for line in lines[:-_SHOWN_LINES] if _ERROR.search(line)]
    return [*dict.fromkeys(above[-_SHOWN_ERRORS:]), *(["…"] if above else []), *lines[-_SHOWN_LINES:]]


def _draw(text: str) -> None:
    """Write what steers the terminal, as only we do."""
    getattr(sys.stderr, "drawn", sys.stderr).write(text)


@contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    """Show a line on stderr, the last one given, and remove it at the end; nothing where that is no terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda line: None
        return

    def show(line: str) -> None:
        _draw(f"\r\x1b[2K  {plain(line[: shutil.get_terminal_size().columns - 3])}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        _draw("\r\x1b[2K")
        sys.stderr.flush()


if __name__ == "__main__":
    run_command_line(main, InstallError)
