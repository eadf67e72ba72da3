"""How a command line ends: its exit code, an error in words, or a clean interruption."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from cli import home
from cli.terminal import Guarded, plain

# What a full, quota-bound, read-only or foreign disk says; any other OSError is ours to have foreseen.
_THE_MACHINES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def run_command_line(main: Callable[[], int], expected: type[Exception]) -> NoReturn:
    """Run `main` and exit: its own code, 1 with the message for an `expected` error, 130 on Ctrl-C.

    Whatever it prints is made plain text first: labels, names and errors come from servers and files.

    SIGTERM and SIGHUP (the terminal was closed) become SystemExit, so that `with` blocks and `finally` clean up
    as on Ctrl-C. A bug is not an expected error and keeps its traceback.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller: what is printed to it goes nowhere
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # it stays open
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be any bytes, and the terminal's encoding may be ASCII.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = Guarded(sys.stdout), Guarded(sys.stderr)
    os.environ.setdefault("PYTHON_COLORS", "0")  # what 3.13 and later colour, tracebacks and help, would not be colours
    home.settle()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    sys.exit(exit_code_of(main, expected))


def exit_code_of(main: Callable[[], int], expected: type[Exception]) -> int:
    """Run `main`, say on stderr what went wrong, and return what `run_command_line` exits with."""
    try:
        code = main()
        sys.stdout.flush()
    except expected as error:
        print(f"error: {plain(str(error))}", file=sys.stderr)
        code = 1
    except BrokenPipeError:  # `… | head`: the reader left, which is not an error of ours
        sys.stderr.close()
        code = 141
    except OSError as error:
        if error.errno not in _THE_MACHINES:
            raise
        print(f"error: {error.strerror}: {error.filename or 'a file'}", file=sys.stderr)
        print("Hint: free disk space or mend the permissions, then run the same command again", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    return code
