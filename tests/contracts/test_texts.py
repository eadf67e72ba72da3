"""Arrays of text are read as numpy pickles them, and nothing else that is pickled is made."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts import samples
from contracts.files import texts

WORDS = ["red", "grün", "", "日本", "a longer one"]


@pytest.mark.parametrize(
    "array",
    [
        np.array(WORDS, object),
        np.array([word.encode() for word in WORDS], object),
        np.array([WORDS, WORDS[::-1]], object),
        np.asfortranarray(np.array([WORDS, WORDS[::-1]], object)),
        np.array(WORDS[:1], object),
        np.empty((0, 2), object),
    ],
)
def test_what_numpy_writes_is_read(tmp_path: Path, array: NDArray[np.object_]) -> None:
    np.savez(tmp_path / "x.npz", text=array, number=np.arange(3))
    found = samples.load_arrays(tmp_path / "x.npz", 1 << 20)
    assert found["text"].shape == array.shape and found["text"].tolist() == array.tolist()
    assert found["number"].tolist() == [0, 1, 2]


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("held", [Harm(), 1, None, ["a list"], np.float32(1)])
def test_anything_else_is_refused_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: object) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.empty(3, object)
    array[:] = ["a", held, "b"]
    np.savez(tmp_path / "x.npz", text=array)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded, unless they hold text"):
        samples.load_arrays(tmp_path / "x.npz", 1 << 20)
    assert not (tmp_path / "harmed").exists()


def test_text_of_any_type_becomes_str(tmp_path: Path) -> None:
    given = np.array([["grün"], ["b"]])
    for array in (given, np.char.encode(given, "utf-8"), given.astype(object)):
        assert texts.as_str(array).tolist() == given.tolist() and texts.as_str(array).dtype == object
    with pytest.raises(UnicodeDecodeError):
        texts.as_str(np.array([b"\xff"]))
