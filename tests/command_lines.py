"""Command lines of ours, run in the test's own process: what it has imported once is not imported again.

A process of its own costs 0.5 s for `deploy` and 3 s for `export` before it does anything. It is taken where the
process is what is tested: signals, servers that outlive their command, exit codes as the shell sees them.
"""

import io
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

from cli.run import exit_code_of
from contracts import layout
from contracts.errors import ProjectError

# What stays in the foreground until a signal ends it, or leaves seeds, threads and half of a network behind.
_FOREGROUND = {("deploy", "up"), ("deploy", "drill"), ("training", "fit")}
_UNTIL_STOPPED = {"--watch", "--follow", "-f"}


def may_run_here(arguments: Sequence[str]) -> bool:
    """Whether `python -m ARGUMENTS…` ends by itself and leaves this process as it was."""
    if threading.current_thread() is not threading.main_thread():  # streams and environment are everybody's
        return False
    if arguments[0] not in ("deploy", "export", "training") or _UNTIL_STOPPED & set(arguments):
        return False
    return "--detach" in arguments or tuple(arguments[:2]) not in _FOREGROUND


def run_here(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path = layout.ROOT
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m ARGUMENTS…` in this process: its exit code and what it wrote.

    Args:
        environment: The variables that it sees, for as long as it runs.
        folder: The working directory for as long.
    """
    program, *given = arguments
    output, errors = _stream(), _stream()
    with _environment(environment), chdir(folder), redirect_stdout(output), redirect_stderr(errors):
        try:
            main = import_module(f"{program}.__main__").main
            code = exit_code_of(lambda: main(given), ProjectError)
        except SystemExit as ended:  # a mistake in the arguments
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except Exception:  # a bug: what the interpreter would do
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess([sys.executable, "-m", *arguments], code, _text(output), _text(errors))


def _stream() -> io.TextIOWrapper:
    # As `cli.run` makes the real ones. Never closed: loggers that were made meanwhile keep it.
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    written: io.BytesIO = stream.buffer  # type: ignore[assignment]  # what _stream wraps
    return written.getvalue().decode()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    try:
        _become(variables)
        yield
    finally:
        _become(before)


def _become(variables: Mapping[str, str]) -> None:
    """Change what differs, so that no other thread ever finds the environment empty."""
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
