"""Where the stages of a family meet on disk, below data/: each stage has a folder, each family a folder in it."""

import os
from dataclasses import dataclass
from pathlib import Path

from contracts import layout
from training.errors import DataError

_STAGES = ("raw", "interim", "processed", "sample", "gates", "trained", "released")
_LARGER = "to have the data on a larger disk, make that folder a mount, or: dvc cache dir --local /LARGER/DISK"


@dataclass(frozen=True)
class Places:
    """The folders of a family's data.

    Attributes:
        raw: As it was delivered, for the periods that a version is made of.
        interim: Cleaned and joined, a row for what a row of the raw data stands for.
        processed: With features: what training reads.
        sample: A small part of that, to try something.
        gates: What the gates found: `<stage>/passed` and `<stage>/figures.json`.
        trained: The checkpoint, its figures, and what is plotted.
        released: Which release was made of that.
        docs: Data docs of the gates; no part of the data.
    """

    raw: Path
    interim: Path
    processed: Path
    sample: Path
    gates: Path
    trained: Path
    released: Path
    docs: Path


def of(family: str) -> Places:
    """Return where a family's data lies: below DATA_DIR, else data/.

    Raises:
        DataError: DVC runs this, which tracks data/ by its path, and the data lies elsewhere.
    """
    home = layout.data()
    if root := os.environ.get("DVC_ROOT"):
        _see_where(home, Path(root, "data"))
    return Places(
        raw=home / "raw" / family,
        interim=home / "interim" / family,
        processed=home / "processed" / family,
        sample=home / "sample" / family,
        gates=home / "gates" / family,
        trained=home / "trained" / family,
        released=home / "released" / family,
        docs=layout.artifacts() / "data_docs" / family,
    )


def _see_where(home: Path, expected: Path) -> None:
    if home != expected.resolve():
        raise DataError(
            "DATA_DIR names another folder than the one whose versions DVC keeps",
            note=f"found {home}, expected {expected}",
            hint=f"unset DATA_DIR; {_LARGER}",
        )
    if links := [path for path in (expected, *map(expected.joinpath, _STAGES)) if path.is_symlink()]:
        raise DataError(
            f"{layout.shown(links[0])} is a link, and DVC keeps nothing that lies behind one",
            note=f"it leads to {links[0].resolve()}",
            hint=f"a folder in its place; {_LARGER}",
        )
