"""Arrays as requests and responses have them: their types by Triton's names, strings, and batches in chunks."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from clients.errors import InvalidResponseError

_NOT_SPLIT = "up to max_batch_size rows are not split, and returned as they are"

Arrays = dict[str, NDArray[Any]]
datatype_of = lru_cache(256)(np_to_triton_dtype)  # cached, as it compares with one type after the other


@lru_cache(64)  # as above
def numpy_type(datatype: str) -> Any:
    """Return numpy's type for a datatype by Triton's name.

    Raises:
        ValueError: there is none.
    """
    if (found := triton_to_np_dtype(datatype)) is None:
        raise ValueError(f"unknown datatype {datatype!r}")
    return found


def strings(given: ArrayLike) -> NDArray[Any]:
    """Encode text in UTF-8, and leave bytes as they are. NumPy would take trailing zeros off bytes of its type S.

    Raises:
        TypeError: it is neither.
        ValueError: it has rows of different lengths, or a text that UTF-8 does not have.
    """
    array = given if isinstance(given, np.ndarray) else np.asarray(given, dtype=np.object_)
    if array.dtype.kind not in "OU" or {*map(type, array.flat)} <= {bytes}:
        return array
    encoded = np.empty(array.shape, np.object_)
    for i, item in np.ndenumerate(array):
        if not isinstance(item, bytes | str):
            raise TypeError(f"{item!r} is neither bytes nor text")
        encoded[i] = item.encode() if isinstance(item, str) else bytes(item)  # of np.bytes_, str() would be sent
    return encoded


def encoded_strings(array: NDArray[Any]) -> bytes:
    """Serialize BYTES as Triton has them on the wire: each element with its length before it."""
    return serialize_byte_tensor(array).item() if array.size else b""


def rows_of(arrays: Arrays) -> int:
    """Return the size of a batch."""
    return len(next(iter(arrays.values())))


def split(arrays: Arrays, max_batch_size: int) -> list[Arrays]:
    """Cut a batch in chunks of at most `max_batch_size` rows, in order; 0: it is no batch, and stays whole."""
    rows = rows_of(arrays) if arrays and max_batch_size else 0
    if rows <= max_batch_size:
        return [arrays]
    return [
        {name: array[first : first + max_batch_size] for name, array in arrays.items()}
        for first in range(0, rows, max_batch_size)
    ]


def concatenated(chunks: Sequence[Arrays], rows: Sequence[int]) -> Arrays:
    """Put the outputs of the chunks of a batch together, as those of the whole.

    Args:
        rows: How many were sent in each chunk.

    Raises:
        InvalidResponseError: a chunk has another number of rows, or the chunks do not fit together.
    """
    for chunk, sent in zip(chunks, rows, strict=True):
        for name, array in chunk.items():
            if array.shape[:1] != (sent,):
                raise InvalidResponseError(
                    f"{name} has the shape {list(array.shape)} for {sent} rows of a batch that was split",
                    hint=_NOT_SPLIT,
                )
    try:
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    except (KeyError, ValueError) as error:  # what is padded to the longest of a batch, say
        raise InvalidResponseError(
            f"the outputs of a batch that was split do not fit together: {error}", hint=_NOT_SPLIT
        ) from error
