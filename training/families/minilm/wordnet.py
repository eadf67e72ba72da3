"""WordNet 3.0: found or unpacked from Debian's package, and read as synsets with their glosses and examples.

Princeton University (2010), https://wordnet.princeton.edu, WordNet licence. Its files are described by wndb(5).
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cli.installing import debian
from contracts import layout
from training.errors import DataError

DEBIAN_PACKAGE = "wordnet-base"
_INSTALLED = Path("/usr/share/wordnet")
_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class Synset:
    """A meaning: what it is, and a sentence that has a word of it, where there is one."""

    gloss: str
    example: str | None


def locate(root: Path) -> Path:
    """Find the directory with the four data files, or unpack Debian's package there, which needs no root.

    Args:
        root: Where they are put, in a folder of their own.

    Raises:
        DataError: they are not there, and the package cannot be had.
    """
    home = root / "wordnet"
    for directory in (home, _INSTALLED):
        if all((directory / name).is_file() for name in _FILES):
            return directory
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".unpack-") as scratch:
            debian.unpack([DEBIAN_PACKAGE], Path(scratch))
            for name in _FILES:
                (Path(scratch) / _INSTALLED.relative_to("/") / name).replace(home / name)
    except OSError as error:
        raise DataError(
            "WordNet 3.0 was not found, and Debian's package of it could not be had",
            note=f"looked in {layout.shown(home)} and {_INSTALLED}; {DEBIAN_PACKAGE}: {error}",
            hint=f"sudo apt-get install {DEBIAN_PACKAGE}, or put {', '.join(_FILES)} into {layout.shown(home)}",
        ) from error
    return home


def read(directory: Path) -> list[Synset]:
    """Read all synsets that have a gloss, in the order of the files.

    Raises:
        DataError: a file holds none.
    """
    found = []
    for name in _FILES:
        lines = (directory / name).read_text(encoding="latin-1").splitlines()
        synsets = [_synset(line.partition(" | ")[2]) for line in lines if " | " in line]
        if not synsets:
            raise DataError(f"{layout.shown(directory / name)} has no synsets", hint="remove it: it is fetched again")
        found += [synset for synset in synsets if synset.gloss]
    return found


def _synset(text: str) -> Synset:
    """Read `a definition; another; "an example"; "another"`."""
    gloss, _, _ = text.partition('"')
    examples = _QUOTED.findall(text)
    return Synset(gloss.strip(" ;"), examples[0].strip() if examples else None)
