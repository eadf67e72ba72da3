"""config.pbtxt against what it will serve: names, dtypes, dimensions, batch limits, file names.

Triton finds most disagreements when it loads the model; a wrong output dtype it does not, and leaks GPU memory.
Here the spec stands in the middle: the configurations are compared with it before any work is done, the graphs
and engines when they are made, and so each with the others.

Triton has no scalars. Of a batched network an output of shape [batch] has `dims: [ 1 ] reshape { shape: [ ] }`; without
a batch, where there are no empty reshapes, a scalar has `dims: [ 1 ]`.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from onnx import ModelProto

from contracts import model_config
from contracts.engines.plans import cc_model_filenames
from contracts.entities.declaration import Declaration
from contracts.manifest import Gate
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export import graphs
from export.errors import RefusedError
from export.proof import gates

# The variants of a configuration: Triton's --model-config-name chooses.
CONFIGS = ("config.pbtxt", "configs/cpu.pbtxt")
LABELS = "labels.txt"
VOCABULARIES = "vocabularies.json"
WARMUP = "warmup"  # where Triton looks for what `input_data_file` names
_ENDS: tuple[Literal["min"], Literal["max"]] = ("min", "max")

IOTensors = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (numpy dtype, dims; -1 where it may vary)


def config_gates(model_directory: Path, spec: ModelSpec) -> tuple[Gate, ...]:
    """Compare each configuration of the model with the spec, a gate each.

    The same of the labels that its postprocessing gives, of the vocabularies that its preprocessing reads, and of the
    inputs that its entities become.

    Raises:
        ModelConfigError: one is missing or is no model configuration.
    """
    found = []
    for name in CONFIGS:
        config = model_config.read(model_directory / name)
        found.append(_gate(name, _config_faults(config, spec, model_directory)))
    labels = model_directory.parent / f"{spec.family}_postprocess" / LABELS
    if labels.is_file():
        named = labels.read_text(encoding="utf-8").splitlines()
        wrong = [f"class {i} is {a!r}, not {b!r}" for i, (a, b) in enumerate(zip_longest(named, spec.labels)) if a != b]
        found.append(_gate(f"{labels.parent.name}/{LABELS}", wrong))
    if spec.vocabularies:
        path = model_directory.parent / f"{spec.family}_preprocess" / VOCABULARIES
        found.append(_gate(f"{path.parent.name}/{VOCABULARIES}", _vocabulary_faults(path, spec)))
    if spec.entities is not None:
        folder = model_directory.parent / spec.entities.model
        faults = dict.fromkeys(
            fault
            for path in model_config.paths(folder)
            for fault in _entity_faults(model_config.read(path), spec.entities)
        )
        found.append(_gate(f"entities of {folder.name}", [*faults] if folder.is_dir() else ["there is no such model"]))
    return tuple(found)


def _vocabulary_faults(path: Path, spec: ModelSpec) -> list[str]:
    """Say where a step's vocabularies are not the spec's: a number would stand for another name than in training."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        found = {column: list(listed[column]) for column in spec.vocabularies}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"it cannot be read: {type(error).__name__}: {error}"]
    return [
        f"{column} {place} is {a!r}, not {b!r}"
        for column, names in spec.vocabularies.items()
        for place, (a, b) in enumerate(zip_longest(found[column], names[1:]), start=1)
        if a != b
    ]


def check_configs(model_directory: Path, spec: ModelSpec) -> tuple[Gate, ...]:
    """Return the gates of the configurations, all of them passed.

    Raises:
        ModelConfigError: one is missing or is no model configuration.
        RefusedError: one disagrees with the spec.
    """
    found = config_gates(model_directory, spec)
    if not all(gate.passed for gate in found):
        raise RefusedError(
            f"the configuration of {spec.model} is not what the spec says; nothing was published",
            note=gates.failures(found),
            hint=f"mend it in the model repository, in {spec.model}",
        )
    return found


def graph_gate(model: ModelProto, spec: ModelSpec) -> Gate:
    """Check that a graph takes and gives what the spec says, with every dynamic dimension dynamic.

    An input may be open where the spec fixes it: whoever sends another size is refused by the configuration.
    """
    inputs, outputs = graphs.io_tensors(model)
    wanted = {tensor.name: dims_of(tensor) for tensor in spec.inputs}
    fixed = {name: (dtype, _fixed(dims, wanted.get(name, ()))) for name, (dtype, dims) in inputs.items()}
    faults = _differences("input", fixed, spec.inputs) + _differences("output", outputs, spec.outputs)
    return _gate("the graph", faults)


def engine_gate(io_tensors: Sequence[IOTensors], spec: ModelSpec) -> Gate:
    """Check the same of an engine.

    Args:
        io_tensors: Its inputs and its outputs.
    """
    inputs, outputs = io_tensors
    faults = _differences("input", inputs, spec.inputs) + _differences("output", outputs, spec.outputs)
    return _gate("the engine", faults)


def _config_faults(config: Any, spec: ModelSpec, folder: Path) -> list[str]:
    faults = []
    if config.name and config.name != spec.model:
        faults.append(f"its name is {config.name!r}, not {spec.model!r}")
    for kind, tensors, specs in (("input", config.input, spec.inputs), ("output", config.output, spec.outputs)):
        scalars = {tensor.name for tensor in specs if not tensor.shape}
        found = {t.name: (_numpy_name(t.data_type), _dims(t, t.name in scalars, spec.batched)) for t in tensors}
        faults += _differences(kind, found, specs)
        faults += [f"{kind} {t.name!r} {fault}" for t in tensors for fault in _not_loaded(t, spec.batched)]
    if spec.batched and not 1 <= config.max_batch_size <= spec.batch.max:
        faults.append(f"max_batch_size is {config.max_batch_size}, the engines take 1 to {spec.batch.max}")
    if not spec.batched and config.max_batch_size:
        faults.append(f"max_batch_size is {config.max_batch_size}, not 0: the network takes no batches")
    if config.HasField("dynamic_batching"):
        faults += [
            f"preferred_batch_size {size} is more than max_batch_size {config.max_batch_size}"
            for size in config.dynamic_batching.preferred_batch_size
            if size > config.max_batch_size
        ]
    tensorrt = "tensorrt" in (config.platform.partition("_")[0], config.backend)
    default = "model.plan" if tensorrt else "model.onnx"
    if config.default_model_filename not in ("", default):
        faults.append(f"default_model_filename is {config.default_model_filename!r}, not {default!r}")
    published = cc_model_filenames()
    faults += [
        f"compute capability {cc} loads {file!r}, not {published.get(cc)!r}"
        for cc, file in sorted(config.cc_model_filenames.items())
        if published.get(cc) != file
    ]
    for warmup in config.model_warmup:
        faults += _warmup_faults(warmup, config, spec, folder)
    for graph in config.optimization.cuda.graph_spec:
        faults += _graph_faults(graph, config, spec)
    return faults


def _entity_faults(config: Any, declared: Declaration) -> Iterator[str]:
    """Say where the inputs of a model are not what its entities and what is looked up for them become, [B, 1] each."""
    taken = {tensor.name: tensor for tensor in config.input}
    if not config.max_batch_size:
        yield "max_batch_size is 0: a row is a sample of a batch"
    for name, dtype in declared.inputs.items():
        if name not in taken:
            yield f"{name!r} is no input of it"
        elif (found := (_numpy_name(taken[name].data_type), list(taken[name].dims))) != (dtype, [1]):
            yield f"{name!r} is {found[0]} with dims {found[1]}, not {dtype} with dims [1]"
    for name, tensor in taken.items():
        if name not in declared.inputs and not tensor.optional:
            yield f"the input {name!r} is neither an entity nor looked up"


def _dims(tensor: Any, scalar: bool, batched: bool) -> tuple[int, ...]:
    """Return the dimensions with which the backend has a configured tensor."""
    dims = tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
    if batched:
        return (-1, *dims)
    return () if scalar and all(dim == 1 for dim in dims) else dims


def _not_loaded(tensor: Any, batched: bool) -> list[str]:
    """Say what Triton refuses of a configured tensor, which is found when no server starts any more."""
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if not dims:
        return ["has no dims: dims: [ 1 ]" + " reshape { shape: [ ] }" * batched]
    if not tensor.HasField("reshape"):
        return []
    if not shape and not batched:
        return ["has an empty reshape, which there is with batches alone: dims: [ 1 ]"]
    # With dimensions that vary it is Triton who tells.
    differs = -1 not in (*dims, *shape) and math.prod(dims) != math.prod(shape)
    return [f"has dims {dims}, and other elements in its reshape {shape}"] if differs else []


def _warmup_faults(warmup: Any, config: Any, spec: ModelSpec, folder: Path) -> list[str]:
    """Say what is wrong with a warm-up: one that fails ends Triton 2.51 in about half of the tries."""
    told = f"warmup {warmup.name!r}"
    faults = []
    if not 1 <= warmup.batch_size <= max(config.max_batch_size, 1):
        faults.append(f"{told} has a batch of {warmup.batch_size}")
    strange = warmup.inputs.keys() ^ {tensor.name for tensor in spec.inputs}
    faults += [f"{told}: {name!r} is no input, or is left away" for name in sorted(strange)]
    for tensor in spec.inputs:
        if tensor.name in warmup.inputs:
            given = warmup.inputs[tensor.name]
            faults += [f"{told}: {fault}" for fault in _warmup_input_faults(given, tensor, spec, folder)]
    return faults


def _warmup_input_faults(given: Any, tensor: TensorSpec, spec: ModelSpec, folder: Path) -> Iterator[str]:
    if (dtype := _numpy_name(given.data_type)) != tensor.dtype:
        yield f"{tensor.name!r} is {dtype}, not {tensor.dtype}"
    yield from _dims_faults(list(given.dims), tensor, spec)
    if given.WhichOneof("input_data_type") is None:
        yield f"{tensor.name!r} has neither random_data nor zero_data nor an input_data_file"
    if not given.input_data_file:
        return
    file, size = folder / WARMUP / given.input_data_file, math.prod(given.dims) * np.dtype(tensor.dtype).itemsize
    if not file.is_file():
        yield f"{tensor.name!r}: there is no {WARMUP}/{given.input_data_file}"
    elif np.dtype(tensor.dtype).kind not in "OSU" and file.stat().st_size != size:  # of one sample: it is repeated
        yield f"{tensor.name!r}: {WARMUP}/{given.input_data_file} has {file.stat().st_size} bytes, not {size}"


def _graph_faults(graph: Any, config: Any, spec: ModelSpec) -> list[str]:
    """Say what is wrong with the shapes that a CUDA graph is captured in: outside of the profile none is."""
    told, lower = f"CUDA graph of batch {graph.batch_size}", graph.graph_lower_bound
    faults = []
    if graph.batch_size > config.max_batch_size:
        faults.append(f"{told}: max_batch_size is {config.max_batch_size}")
    if lower.batch_size > graph.batch_size:
        faults.append(f"{told}: its lower bound has a batch of {lower.batch_size}")
    inputs = {tensor.name: tensor for tensor in spec.inputs}
    for where, shapes in ((told, graph.input), (f"{told}, lower bound", lower.input)):
        for name in sorted(shapes):
            if name not in inputs:
                faults.append(f"{where}: {name!r} is no input")
                continue
            faults += [f"{where}: {fault}" for fault in _dims_faults(list(shapes[name].dim), inputs[name], spec)]
    return faults


def _dims_faults(dims: Sequence[int], tensor: TensorSpec, spec: ModelSpec) -> list[str]:
    """Say where dims, without the batch, are not within the range of an input."""
    low, high = (list(tensor.shape_at(end)[spec.batched :]) or [1] for end in _ENDS)
    if len(dims) == len(low) and all(a <= dim <= b for a, dim, b in zip(low, dims, high, strict=True)):
        return []
    return [f"{tensor.name!r} is {list(dims)}, outside of {low} to {high}"]


def _differences(kind: str, found: IOTensors, specs: Sequence[TensorSpec]) -> list[str]:
    faults = []
    expected = {tensor.name: tensor for tensor in specs}
    for name in sorted(found.keys() - expected.keys()):
        faults.append(f"{kind} {name!r} is not in the spec, which has {', '.join(expected)}")
    for name, tensor in expected.items():
        if name not in found:
            faults.append(f"{kind} {name!r} is missing")
            continue
        dtype, dims = found[name]
        if dtype != tensor.dtype:
            faults.append(f"{kind} {name!r} is {dtype}, not {tensor.dtype}")
        if dims != (wanted := dims_of(tensor)):
            baked = len(dims) == len(wanted) and any(d != -1 and w == -1 for d, w in zip(dims, wanted, strict=True))
            faults.append(f"{kind} {name!r} has dims {list(dims)}, not {list(wanted)}" + (", it is baked in" * baked))
    return faults


def _fixed(dims: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    if len(dims) != len(wanted):
        return dims
    return tuple(w if d == -1 else d for d, w in zip(dims, wanted, strict=True))


def dims_of(tensor: TensorSpec) -> tuple[int, ...]:
    """Return the tensor's dimensions as Triton writes them, batch first: -1 where one may vary."""
    return tuple(-1 if isinstance(d, DynamicDim) else d for d in tensor.shape)


def _gate(what: str, faults: Sequence[str]) -> Gate:
    return Gate(f"contract: {what}", len(faults), 0, "at most", "; ".join(faults), id=f"contract:{what}")


def _numpy_name(data_type: int) -> str:
    from tritonclient.grpc import model_config_pb2
    from tritonclient.utils import triton_to_np_dtype

    name = model_config_pb2.DataType.Name(data_type).removeprefix("TYPE_")
    dtype = triton_to_np_dtype("BYTES" if name == "STRING" else name)
    return str(np.dtype(dtype)) if dtype is not None else name
