"""The features as serving makes them: the file that runs in Triton, and the vocabularies beside it.

Training reads its rows through the same code. Both are a part of the data's fingerprint: what was trained with other
features is not exported with these.
"""

import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contracts import layout

FAMILY = Path(__file__).parent.name
_STEP = layout.ROOT / "model_repository" / f"{FAMILY}_preprocess"
_SOURCE = _STEP / "1" / "features.py"
VOCABULARIES = _STEP / "vocabularies.json"
_FEWEST = 50  # flights of a destination in training: of fewer nothing is learned


def _serving() -> Any:
    found = importlib.util.spec_from_file_location(f"{FAMILY}_features", _SOURCE)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


serving = _serving()


def names() -> dict[str, tuple[str, ...]]:
    """Return {category: its names, what is in none first}: a name's place is its number."""
    listed = json.loads(VOCABULARIES.read_text(encoding="utf-8"))
    return {category: ("(unknown)", *listed[category]) for category in serving.CATEGORIES}


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Return the names that are common enough to be learned, as vocabularies.json has those of the training split."""
    return sorted(text for text, count in Counter(texts).items() if count >= _FEWEST)


def fingerprint() -> str:
    """Return a digest of the code and the vocabularies."""
    return hashlib.sha256(_SOURCE.read_bytes() + VOCABULARIES.read_bytes()).hexdigest()
