"""What steps are put around: a network's tensors, as its config.pbtxt has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts import layout, model_config
from contracts.errors import ModelConfigError

STRING = "TYPE_STRING"


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a model in the repository."""

    name: str
    data_type: str  # Triton's name: "TYPE_FP32", "TYPE_STRING"
    dims: tuple[int, ...]  # without the batch; -1 where one may vary

    @property
    def dtype(self) -> str:
        """Numpy's name of its type, "string" for strings."""
        from tritonclient.utils import triton_to_np_dtype

        if self.data_type == STRING:
            return "string"
        return str(np.dtype(triton_to_np_dtype(self.data_type.removeprefix("TYPE_"))))


@dataclass(frozen=True)
class Network:
    """A network that lies in the model repository."""

    model: str
    max_batch_size: int  # 0: it takes requests as they are, one at a time
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # {input: a shape that it takes, without the batch}; of an input whose dimensions vary only where a warm-up tells.
    shapes: Mapping[str, tuple[int, ...]]


def read(directory: Path) -> Network:
    """Read what a network takes and gives.

    Args:
        directory: Its folder in the model repository.

    Raises:
        ModelConfigError: there is no configuration, it is none, or it is of an ensemble or a Python model.
    """
    from tritonclient.grpc import model_config_pb2

    path = directory / "config.pbtxt"
    if not path.is_file():
        raise ModelConfigError(
            f"there is no network {directory.name} in {layout.shown(directory.parent)}",
            note=f"networks: {', '.join(_networks(directory.parent)) or 'none'}",
            hint="publish it first: python -m export --onnx FILE --spec FILE --inputs FILE",
        )
    config = model_config.read(path)
    if config.platform == "ensemble" or config.backend == "python":
        raise ModelConfigError(
            f"{directory.name} is no network, but {'an ensemble' if config.platform else 'a Python model'}",
            note=f"networks: {', '.join(_networks(directory.parent)) or 'none'}",
        )
    if strange := [t.name for t in (*config.input, *config.output) if t.data_type == model_config_pb2.TYPE_BF16]:
        raise ModelConfigError(f"{directory.name}: {strange[0]!r} is bfloat16, which no Python step can take or give")
    inputs = _tensors(config.input)
    return Network(directory.name, config.max_batch_size, inputs, _tensors(config.output), _shapes(config, inputs))


def tensor(name: str, dtype: str, dims: Sequence[int]) -> Tensor:
    """Return a tensor of a type that is given by numpy's name, or "string".

    Raises:
        ValueError: there is no such type in Triton.
    """
    from tritonclient.utils import np_to_triton_dtype

    if dtype == "string":
        return Tensor(name, STRING, tuple(dims))
    try:
        triton = np_to_triton_dtype(np.dtype(dtype))
    except TypeError:
        triton = None
    if triton in (None, "BYTES"):
        raise ValueError(f'{dtype!r} is no type of a tensor: numpy\'s names, as "float32", and "string"')
    return Tensor(name, f"TYPE_{triton}", tuple(dims))


def _tensors(found: Any) -> tuple[Tensor, ...]:
    from tritonclient.grpc import model_config_pb2

    return tuple(Tensor(t.name, model_config_pb2.DataType.Name(t.data_type), tuple(t.dims)) for t in found)


def _shapes(config: Any, inputs: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
    warmed = {name: tuple(value.dims) for warmup in config.model_warmup for name, value in warmup.inputs.items()}
    fixed = {each.name: each.dims for each in inputs if -1 not in each.dims}
    return warmed | fixed


def _networks(root: Path) -> list[str]:
    """List the models that have a configuration for a machine without a GPU: those that are run by a runtime."""
    return sorted(path.parent.parent.name for path in root.glob("*/configs/cpu.pbtxt"))
