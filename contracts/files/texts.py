"""Arrays of text in .npy files as numpy writes them: pickled, and read here without making anybody's classes."""

import pickle
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")


class _Noted:
    """Stands for the array and its dtype in the pickle: it keeps what they are made of, and is neither."""

    def __init__(self, *made_of: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _TextsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in ("_reconstruct", "ndarray", "dtype"):
            return _Noted
        raise ValueError(f"Object arrays cannot be loaded, unless they hold text: {module}.{name}")


def read(stream: IO[bytes]) -> NDArray[np.object_]:
    """Read what follows the header of a .npy with an array of objects.

    Raises:
        ValueError: it holds anything but str and bytes.
    """
    try:
        found = _TextsOnly(stream).load()
        _, shape, _, _, texts = found.state  # in the order of C, whatever that of the array was
    except ValueError:
        raise
    except Exception as error:  # a pickle may fail in any way
        raise ValueError(f"Object arrays cannot be loaded, unless they hold text: {type(error).__name__}") from error
    if not isinstance(texts, list) or not all(isinstance(text, str | bytes) for text in texts):
        raise ValueError("Object arrays cannot be loaded, unless they hold text: this one holds something else")
    flat = np.empty(len(texts), np.object_)
    flat[:] = texts
    return flat.reshape(shape)


def as_str(values: NDArray[Any]) -> NDArray[np.object_]:
    """Return text of any of numpy's types, str, bytes or objects, as objects of str.

    Raises:
        UnicodeDecodeError: bytes are not UTF-8.
    """
    flat = np.empty(values.size, np.object_)
    for place, text in enumerate(_each(values)):
        flat[place] = text.decode() if isinstance(text, bytes) else str(text)
    return flat.reshape(values.shape)


def is_text(values: NDArray[Any]) -> bool:
    """Tell whether an array holds text, in any of numpy's types for it."""
    return values.dtype.kind in "OSU"


def _each(values: NDArray[Any]) -> Iterator[str | bytes]:
    return iter(values.ravel().tolist())
