"""The root of every error that is a user's to mend, and how a command line shows one.

ProjectError
├── ManifestError        a manifest that is missing, unreadable or does not match its files
├── PublishError         a version that could not be written; nothing was published
├── training.errors.*    data, checkpoints
├── export.errors.*      graphs, gates, engines
├── deploy.errors.*      environment, server
├── clients.errors.*     connection, input, server
└── benchmarks.errors.*  tools, measurements
"""

import signal
import sys
from collections.abc import Callable


class ProjectError(Exception):
    """What failed, what was found and what was expected, and what to do next."""

    def __init__(self, fact: str, *, note: str | None = None, hint: str | None = None) -> None:
        lines = [fact]
        if note:
            lines.append(f"Note: {note}")
        if hint:
            lines.append(f"Hint: {hint}")
        super().__init__("\n".join(lines))


class ManifestError(ProjectError):
    """A release manifest is missing, unreadable, or disagrees with the files beside it."""


class PublishError(ProjectError):
    """A version could not be written; the model repository is as it was."""


def run_command_line(main: Callable[[], int]) -> None:
    """Run `main` and exit: its own code, 1 with the message for a ProjectError, 130 on Ctrl-C.

    SIGTERM is turned into SystemExit so that `with` blocks and `finally` clean up as on Ctrl-C.
    A bug is not a ProjectError and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = main()
        sys.stdout.flush()
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `… | head`: the reader left, which is not an error of ours
        sys.stderr.close()
        code = 141
    sys.exit(code)
