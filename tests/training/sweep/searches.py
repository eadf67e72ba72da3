"""Searches for tests: a space whose best is known, and what drives one trial after the other by hand."""

from pathlib import Path

import pytest

from tests.workspace import FAMILY
from training import families
from training.sweep import space
from training.sweep.study import Search, Study, open_study

TEXT = "search:\n  model.x: {low: 0.1, high: 0.9}\n  model.y: {low: 1, high: 6}\n"
HALVING = "halving: {first: 1, factor: 3}\n"
BOTH = "objectives: [quality, latency]\n"


def search(folder: Path, text: str = TEXT, flags: tuple[str, ...] = (), seed: int = 0) -> Search:
    file = folder / "known.yaml"
    file.write_text(text)
    return Search(FAMILY, None, flags, space.read(file), seed)


def study(folder: Path, wanted: Search, monkeypatch: pytest.MonkeyPatch, name: str = "known") -> Study:
    """A study in a folder of its own, and a database of its own."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(folder / "artifacts"))
    return open_study(name, wanted, f"sqlite:///{folder / 'sweeps.db'}", families.spec(FAMILY))
