"""What is measured: the server that is up, its repository, and images that are sent to it."""

from pathlib import Path

from benchmarks.errors import MeasurementError
from clients.settings import DEFAULT_HTTP_SERVER
from contracts import layout
from contracts.running import record
from deploy.triton import state
from deploy.triton.state import Running


def running() -> Running:
    """Return the server that `deploy up` started.

    Raises:
        MeasurementError: none is up.
    """
    if (up := state.running()) is None:
        raise MeasurementError("no server is up", hint="python -m deploy up --detach")
    return up


def repository() -> Path:
    """Return the model repository that the server serves which is up; without one, that of this checkout."""
    up = record.running()
    return Path(up.repository) if up else layout.model_repository()


def http_url() -> str:
    """Return where the server that is up listens to HTTP; without one, where it usually would."""
    up = record.running()
    return up.http_url if up else DEFAULT_HTTP_SERVER


def images(directory: Path) -> tuple[bytes, ...]:
    """Read the PNG files of a folder, sorted by name.

    Raises:
        MeasurementError: there is none.
    """
    found = tuple(path.read_bytes() for path in sorted(directory.glob("*.png")))
    if not found:
        raise MeasurementError(
            f"there are no images to send: {layout.shown(directory)} holds no .png",
            hint=f"python -m training examples {layout.DEFAULT_FAMILY}",
        )
    return found
