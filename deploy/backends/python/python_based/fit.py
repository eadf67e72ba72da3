"""Whether a configuration fits its model's file, as strictly as the native backend: names, dtypes, dims, batch."""

from collections.abc import Callable, Collection, Mapping, Sequence

from python_based.config import ModelConfig, Tensor
from python_based.errors import ModelError

# Tensors of a model's file by name: their dtype and dims, -1 where one may vary, None of a scalar, or where even the
# rank is unknown. A type that Triton has not is as onnxruntime writes it: "tensor(complex64)", "seq(tensor(float))".
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
    known = {tensor.name for tensor in (*config.inputs, *config.controls)} | config.made_inputs.keys()
    faults = [f"input {name!r} is missing" for name in inputs if name not in known]
    faults += [f"{name!r} is {t}, no tensor" for name, (t, _) in {**inputs, **outputs}.items() if _is_no_tensor(t)]
    for tensor in config.inputs:
        told = _tensor_faults(tensor, inputs, of_input, batches) + _optional_faults(tensor, optional, batches)
        faults += [f"input {tensor.name!r} {fault}" for fault in told]
    for tensor in config.controls:
        faults += [f"control {tensor.name!r} {fault}" for fault in _tensor_faults(tensor, inputs, _gives, batches)]
    for tensor in config.outputs:
        fits = None if tensor.name in config.scattered else of_output  # taken apart, whatever its shape
        faults += [f"output {tensor.name!r} {fault}" for fault in _tensor_faults(tensor, outputs, fits, batches)]
    faults += _made_faults(config, inputs, outputs)
    if batches:
        rows = _with_rows(config)
        for kind, found in (("input", inputs), ("output", outputs)):
            for name, (_, dims) in found.items():  # a scalar is of all rows; of unknown rank it may be right
                if name in rows and dims is not None and (not dims or dims[0] != -1):
                    lacking = "fixed" if dims else "not there"
                    faults.append(f"max_batch_size is not 0, but the batch of {kind} {name!r} is {lacking}")
    if faults:
        raise ModelError(f"config.pbtxt does not fit {file}: {'; '.join(faults)}")


def _is_no_tensor(dtype: str) -> bool:
    return "(" in dtype and not dtype.startswith("tensor(")  # which is one of a type that Triton has not


def _with_rows(config: ModelConfig) -> set[str]:
    """Name the tensors that have a row for each sample of a batch."""
    given = {tensor.name for tensor in (*config.inputs, *config.controls) if not tensor.ragged}
    kept = {name for state in config.states for name in (state.input, state.output)}
    return given | kept | {tensor.name for tensor in config.outputs} - config.scattered.keys()


def _made_faults(config: ModelConfig, inputs: FileTensors, outputs: FileTensors) -> list[str]:
    faults = []
    made = [(name, dtype, inputs) for name, dtype in config.made_inputs.items()]
    made += [(state.output, state.dtype, outputs) for state in config.states]
    for name, dtype, found in made:
        if name not in found:
            faults.append(f"{name!r} is not in it, which has {', '.join(map(repr, sorted(found)))}")
        elif found[name][0] != dtype:
            faults.append(f"{name!r} is {dtype}, not {found[name][0]}")
    return faults


def _tensor_faults(tensor: Tensor, found: FileTensors, fits: _Fits | None, batches: bool) -> list[str]:
    if tensor.name not in found:
        return [f"is not in it, which has {', '.join(map(repr, sorted(found)))}"]
    dtype, dims = found[tensor.name]
    faults = [] if dtype == tensor.dtype else [f"is {tensor.dtype}, not {dtype}"]
    if tensor.ragged:
        return faults if dims == [-1] else [*faults, f"is ragged, which takes dims [-1], not {_written(dims)}"]
    if fits is None:
        return faults
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


def _written(dims: Sequence[int] | None) -> str:
    return "none" if dims is None else str(list(dims))
