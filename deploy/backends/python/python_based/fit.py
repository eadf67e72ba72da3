"""Whether a configuration fits its model's file, as strictly as the native backend: names, dtypes, dims, batch."""

from collections.abc import Callable, Collection, Mapping, Sequence

from python_based.config import ModelConfig, Tensor
from python_based.errors import ModelError

# Tensors of a model's file by name: their dtype and dims, -1 where one may vary, None of a scalar, or where even the
# rank is unknown.
FileTensors = Mapping[str, tuple[str, Sequence[int] | None]]
_Fits = Callable[[int, int], bool]  # a dimension of the file, and as it is configured


def require(
    config: ModelConfig,
    file: str,
    inputs: FileTensors,
    outputs: FileTensors,
    optional: Collection[str] = (),
    *,
    exact: bool = False,
) -> None:
    """Compare a configuration with the tensors of its file.

    Args:
        optional: The inputs that the file can do without.
        exact: As onnxruntime's native backend does it: an output's dims are those of the file, and an input's wherever
            the file's are fixed. Otherwise as TensorRT's: a -1 on either side fits anything.

    Raises:
        ModelError: they differ, with every difference.
    """
    batches = config.max_batch_size > 0
    of_input, of_output = (_takes, _gives) if exact else (_alike, _alike)
    faults = [f"input {name!r} is missing" for name in inputs if name not in {t.name for t in config.inputs}]
    for tensor in config.inputs:
        told = _tensor_faults(tensor, inputs, of_input, batches) + _optional_faults(tensor, optional, batches)
        faults += [f"input {tensor.name!r} {fault}" for fault in told]
    for tensor in config.outputs:
        faults += [f"output {tensor.name!r} {fault}" for fault in _tensor_faults(tensor, outputs, of_output, batches)]
    if batches:
        for name, (_, dims) in inputs.items():
            if not dims or dims[0] != -1:
                faults.append(f"max_batch_size is not 0, but the batch of input {name!r} is {_said(dims)}")
        for name, (_, dims) in outputs.items():  # of unknown rank it may be right, and every answer is looked at
            if dims is not None and (not dims or dims[0] != -1):
                faults.append(f"max_batch_size is not 0, but the batch of output {name!r} is {_said(dims)}")
    if faults:
        raise ModelError(f"config.pbtxt does not fit {file}: {'; '.join(faults)}")


def _tensor_faults(tensor: Tensor, found: FileTensors, fits: _Fits, batches: bool) -> list[str]:
    if tensor.name not in found:
        return [f"is not in it, which has {', '.join(map(repr, sorted(found)))}"]
    dtype, dims = found[tensor.name]
    faults = [] if dtype == tensor.dtype else [f"is {tensor.dtype}, not {dtype}"]
    if dims is None:
        if any(dim != 1 for dim in tensor.dims[batches:]):
            faults.append(f"has dims {list(tensor.dims)}; of a scalar, or where the rank is unknown, each is 1")
    elif len(dims) != len(tensor.dims) or not all(map(fits, dims, tensor.dims)):
        faults.append(f"has dims {list(tensor.dims)}, not {list(dims)}")
    return faults


def _optional_faults(tensor: Tensor, optional: Collection[str], batches: bool) -> list[str]:
    if tensor.optional and tensor.name not in optional:
        return ["is not optional"]
    if tensor.optional and batches:
        return ["is optional, which none can be where max_batch_size is not 0"]
    unsaid = tensor.name in optional and not tensor.optional
    return ["can be left away, so it has to be optional: true"] if unsaid else []


def _alike(in_file: int, configured: int) -> bool:
    return in_file == configured or -1 in (in_file, configured)


def _takes(in_file: int, configured: int) -> bool:
    return in_file in (-1, configured)


def _gives(in_file: int, configured: int) -> bool:
    return in_file == configured


def _said(dims: Sequence[int] | None) -> str:
    return "fixed" if dims else "not there"
