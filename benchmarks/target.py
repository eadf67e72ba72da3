"""What is measured: the server that is up, and the images that are sent to it."""

from pathlib import Path

from benchmarks.errors import MeasurementError
from contracts import layout
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


def images(directory: Path) -> tuple[bytes, ...]:
    """Read the PNG files of a folder, sorted by name.

    Raises:
        MeasurementError: there is none.
    """
    found = tuple(path.read_bytes() for path in sorted(directory.glob("*.png")))
    if not found:
        raise MeasurementError(
            f"there are no images to send: {layout.shown(directory)} holds no .png",
            hint="python -m training examples fashion",
        )
    return found
