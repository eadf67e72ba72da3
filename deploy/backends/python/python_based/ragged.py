"""Requests of one batch as the inputs of one run: rows upon rows, or of different shapes all elements in a row.

`allow_ragged_batch`, `batch_input` and `batch_output` of config.pbtxt, as NVIDIA's backends have them:
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/ragged_batching.md
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from python_based.config import BatchInput, ModelConfig
from python_based.errors import ModelError

if TYPE_CHECKING:
    from python_based.batching import Feed

_Shapes = Sequence[tuple[int, ...]]  # of one input, a request's each

_KINDS: Mapping[str, Callable[[_Shapes], Any]] = {
    "BATCH_ELEMENT_COUNT": lambda shapes: _counts(shapes),
    "BATCH_ACCUMULATED_ELEMENT_COUNT": lambda shapes: np.cumsum(_counts(shapes)),
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": lambda shapes: np.cumsum([0, *_counts(shapes)]),
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": lambda shapes: np.zeros(max(_counts(shapes))),  # its length alone tells
    "BATCH_ITEM_SHAPE": lambda shapes: [shape[1:] for shape in shapes for _ in range(shape[0])],
    "BATCH_ITEM_SHAPE_FLATTEN": lambda shapes: [dim for shape in shapes for dim in shape[1:] * shape[0]],
}


class Joiner:
    """What makes one feed of those of a batch.

    Raises:
        ModelError: an input is to be made in a way that is not known.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.ragged = {tensor.name for tensor in config.inputs if tensor.ragged}
        self._made = config.batch_inputs
        for each in self._made:
            if each.kind not in _KINDS:
                raise ModelError(f"batch_input: kind is {each.kind}, not one of {', '.join(_KINDS)}")

    def joined(self, feeds: "Sequence[Feed]") -> dict[str, NDArray[Any]]:
        """Join the inputs of requests, which name the same, and add those that are made of their shapes."""
        if len(feeds) == 1:
            feed = dict(feeds[0])
        else:
            feed = {n: np.concatenate([f[n] for f in feeds]) for n in feeds[0].keys() - self.ragged}
        for name in self.ragged & feeds[0].keys():
            feed[name] = np.concatenate([f[name].ravel() for f in feeds])
        for each in self._made:
            feed |= dict.fromkeys(each.targets, _values(each, feeds))
        return feed


def scattered(result: NDArray[Any], shapes: _Shapes, dims: Sequence[int]) -> list[NDArray[Any]]:
    """Take a result apart into a request's each.

    Args:
        shapes: Of the input that they are shaped as.
        dims: Of the output; -1 where its dimension is the input's.

    Raises:
        ModelError: the result has another number of elements.
    """
    own = [tuple(shape[axis] if dim == -1 else dim for axis, dim in enumerate(dims)) for shape in shapes]
    ends = np.cumsum(_counts(own))
    if result.size != ends[-1]:
        raise ModelError(f"an output is {list(result.shape)}, and the requests' parts of it are {own}")
    flat = result.ravel()
    return [flat[end - np.prod(shape) : end].reshape(shape) for end, shape in zip(ends, own, strict=True)]


def _values(each: BatchInput, feeds: "Sequence[Feed]") -> NDArray[Any]:
    shapes = [feed[each.source].shape for feed in feeds]
    return np.asarray(_KINDS[each.kind](shapes), np.float32 if each.dtype == "FP32" else np.int32)


def _counts(shapes: _Shapes) -> list[int]:
    return [int(np.prod(shape)) for shape in shapes]
