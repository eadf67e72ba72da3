"""The root of every error that is a user's to mend, and how a command line shows one.

ProjectError
├── SpecError            a model spec that is incomplete or contradicts itself
├── SignatureError       a version that is unsigned, or not what was signed
├── ManifestError        a manifest that is missing, unreadable or does not match its files
├── PublishError         a version that could not be written; nothing was published
├── training.errors.*    data, checkpoints
├── export.errors.*      graphs, gates, engines
├── deploy.errors.*      environment, server
├── clients.errors.*     connection, input, server
└── benchmarks.errors.*  tools, measurements
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

# What a full, quota-bound, read-only or foreign disk says; any other OSError is ours to have foreseen.
_THE_MACHINES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class ProjectError(Exception):
    """What failed, what was found and what was expected, and what to do next."""

    def __init__(self, fact: str, *, note: str | None = None, hint: str | None = None) -> None:
        lines = [fact]
        if note:
            lines.append(f"Note: {note}")
        if hint:
            lines.append(f"Hint: {hint}")
        super().__init__("\n".join(lines))


class SpecError(ProjectError):
    """A model spec is incomplete or contradicts itself."""


class SignatureError(ProjectError):
    """A version could not be signed, is unsigned, or is not what was signed."""


class ManifestError(ProjectError):
    """A release manifest is missing, unreadable, or disagrees with the files beside it."""


class PublishError(ProjectError):
    """A version could not be written; the model repository is as it was."""


def run_command_line(main: Callable[[], int]) -> None:
    """Run `main` and exit: its own code, 1 with the message for a ProjectError, 130 on Ctrl-C.

    SIGTERM and SIGHUP (the terminal was closed) become SystemExit, so that `with` blocks and `finally` clean up
    as on Ctrl-C. A bug is not a ProjectError and keeps its traceback.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller: what is printed to it goes nowhere
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # it stays open
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be any bytes, and the terminal's encoding may be ASCII.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        code = main()
        sys.stdout.flush()
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
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
    sys.exit(code)
