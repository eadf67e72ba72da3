"""A family is one folder: what is not the family's own says no family's name, so that another one touches nothing.

Its own are

  training/families/, its folder and the line that lists it
  model_repository/, what serves it
  configs/model_params/NAME/, and any other folder of its name
  tests/training/, tests/export/ and tests/model_repository/, where it is trained, exported and decoded for

Everything else is given the name: by a command line, by contracts.layout.DEFAULT_FAMILY, or in the tests by
tests.workspace, which has it from there. Pages for people (Markdown) may tell of it as an example.
"""

import re
from pathlib import Path

import pytest

from contracts import layout
from tests.tracked import MODEL_REPOSITORY, tracked
from training.families import FAMILIES

LANGUAGES = {".py", ".toml", ".yaml", ".yml"}
OWN = ("training/families/", "model_repository/", "tests/training/", "tests/export/", "tests/model_repository/")
DEFAULT = f'DEFAULT_FAMILY = "{layout.DEFAULT_FAMILY}"'


def names(family: str) -> re.Pattern[str]:
    """A family's name as a word, and those of its models. Not a dataset's that begins so, as NAME-mnist."""
    return re.compile(rf"(?<![\w-]){re.escape(family)}(?:_[a-z]\w*)?(?![\w-])")


def lines_that_name(family: str, path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if names(family).search(line)]


def not_its_own(family: str) -> list[Path]:
    found = []
    for path in tracked(others=True):
        name = path.relative_to(layout.ROOT).as_posix()
        own = name.startswith(OWN) or MODEL_REPOSITORY in path.parents or f"/{family}/" in f"/{name}"
        if (path.suffix in LANGUAGES or path.name == "Makefile") and not own:
            found.append(path)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_but_its_own_names_a_family_save_the_default(family: str) -> None:
    files = not_its_own(family)
    assert len(files) > 200 and layout.ROOT / "Makefile" in files, "there is something to look at"
    told = {str(path.relative_to(layout.ROOT)): lines for path in files if (lines := lines_that_name(family, path))}
    allowed = {"contracts/layout.py": [DEFAULT]} if family == layout.DEFAULT_FAMILY else {}
    assert told == allowed


def test_the_default_is_a_family() -> None:
    assert layout.DEFAULT_FAMILY in FAMILIES


@pytest.mark.parametrize(
    ("line", "is_named"),
    [
        ('MODEL = "shirts"', True),
        ("python -m export shirts  # the newest", True),
        ("model_repository/shirts_classifier/config.pbtxt", True),
        ("training.families.shirts.spec", True),
        ('Stub process "shirts_preprocess_0_0" is not healthy', True),
        ("Shirts-MNIST, in data/shirts-mnist/", False),
        ("tshirts, shirtsleeves, old-shirts", False),
    ],
)
def test_what_counts_as_a_name(line: str, is_named: bool, tmp_path: Path) -> None:
    name = "shirts"  # whatever the families are
    assert bool(names(name).search(line)) is is_named
