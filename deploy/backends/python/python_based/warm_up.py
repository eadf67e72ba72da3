"""The warm-up of config.pbtxt, rehearsed before Triton does it.

A warm-up that fails ends Triton 2.51 in about half of the tries: a segmentation fault of its core, whatever the
backend. What a model's `initialize` refuses does not. The samples are made as Triton makes them.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from python_based.config import ModelConfig
from python_based.errors import ModelError

if TYPE_CHECKING:
    from python_based.batching import Feed

_NUMPY = {"BOOL": "?", "BF16": "uint16", "FP16": "float16", "FP32": "float32", "FP64": "float64"}  # BF16: its bits


def samples(config: ModelConfig) -> "Iterator[tuple[str, Feed]]":
    """Yield the name of each sample, and the request that Triton will send for it, once or a batch of the same.

    Raises:
        ModelError: they are more than a batch.
    """
    for sample in config.warm_ups:
        rows = int(sample.get("batch_size", 1))
        if rows > max(1, config.max_batch_size):
            raise ModelError(
                f"model_warmup: {sample['name']!r} has batch_size {rows}, max_batch_size is {config.max_batch_size}"
            )
        feed = {name: _values(name, each, config) for name, each in sample.get("inputs", {}).items()}
        if rows:
            yield sample["name"], feed


def _values(name: str, given: Mapping[str, Any], config: ModelConfig) -> NDArray[Any]:
    dtype, dims = given["data_type"].removeprefix("TYPE_"), [int(dim) for dim in given.get("dims", ())]
    if config.max_batch_size > 0:
        dims = [1, *dims]
    count = math.prod(dims)
    if file := given.get("input_data_file"):
        values = _read(config.directory.parent / "warmup" / file, dtype, count)
    elif dtype == "STRING":
        values = np.full(count, b"", np.object_)
    else:
        kind = np.dtype(_NUMPY.get(dtype, dtype.lower()))
        size = count * kind.itemsize
        random = np.random.default_rng(0).bytes(size) if given.get("random_data") else bytes(size)
        values = np.frombuffer(random, kind)
    return values.reshape(_reshaped(name, dims, config))


def _reshaped(name: str, dims: list[int], config: ModelConfig) -> list[int]:
    """Return the dims of one row as the model's file has them, where config.pbtxt reshapes an input of requests."""
    batch = [1] if config.max_batch_size > 0 else []
    for tensor in config.inputs:
        own = [*batch, *tensor.dims[len(batch) :]]
        if tensor.name == name and -1 not in own:
            return own
    return dims


def _read(file: Path, dtype: str, count: int) -> NDArray[Any]:
    content = file.read_bytes()  # Triton has read it
    if dtype != "STRING":
        return np.frombuffer(content, np.dtype(_NUMPY.get(dtype, dtype.lower())), count)
    texts, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        texts.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    values = np.empty(len(texts), np.object_)
    values[:] = texts
    return values
