"""Files that appear whole: filled under a name that nobody can guess, and renamed into place."""

import os
import secrets
from pathlib import Path


def write(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write a file in one step; readers never see half of it, and a link in its place is replaced.

    Args:
        mode: As of a new file, less the umask.
    """
    partial = unused_name(path)
    try:
        with os.fdopen(create(partial, mode), "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def unused_name(path: Path) -> Path:
    """Return the name of a hidden sibling that nobody can have made before."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def create(path: Path, mode: int = 0o666) -> int:
    """Open a file for writing that was not there, also not as a link; return its descriptor.

    Raises:
        FileExistsError: something is there.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
