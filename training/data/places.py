"""Where the stages of a family meet on disk, below data/: each stage has a folder, each family a folder in it."""

import os
from dataclasses import dataclass
from pathlib import Path

from contracts import layout
from training.errors import DataError


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
        DataError: DVC runs this, which tracks data/ by its path, and DATA_DIR names another folder.
    """
    home = layout.data()
    if (root := os.environ.get("DVC_ROOT")) and home != (expected := Path(root, "data").resolve()):
        raise DataError(
            "DATA_DIR names another folder than the one whose versions DVC keeps",
            note=f"found {home}, expected {expected}",
            hint="unset DATA_DIR; to have the data on a larger disk, make that folder a mount",
        )
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
