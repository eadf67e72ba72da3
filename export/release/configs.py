"""Write the configurations of a brought graph from its spec: the GPU's config.pbtxt and the CPU's configs/cpu.pbtxt.

They refuse what is too much, as those of the families do (docs/how-to/overload.md), and warm up with a real sample: on
zeros or noise a graph may fail, and a warm-up that fails ends Triton 2.51 in about half of the tries.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.engines.plans import cc_model_filenames
from contracts.errors import ModelConfigError
from contracts.names import is_model_name
from contracts.samples import Batch, Group, Split
from contracts.spec import ModelSpec, TensorSpec
from export.proof.contract import CONFIGS, WARMUP, dims_of

# What TensorRT takes and gives; of the rest of Triton's types it has none, nor has its backend scalars.
_TENSORRT_TYPES = frozenset({"BOOL", "UINT8", "INT8", "INT32", "INT64", "FP16", "BF16", "FP32"})
# With a queue policy Triton 2.51 stalls on fewer: only another instance wakes a batcher that missed one.
_FEWEST_INSTANCES = 3
_MOST_INSTANCES = 8  # on a CPU each is a process with the network in its memory

_TEMPLATE = """\
# Written by python -m export from the spec of {model}; yours to change. {other}
name: "{model}"
{runtime}
max_batch_size: {max_batch}

input [
{inputs}
]
output [
{outputs}
]

{batching}
dynamic_batching {{{preferred}
  # 1 overtakes 2, and has a queue of its own; who says nothing is 2.
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {{
    max_queue_size: 64 # requests of each priority
    default_timeout_microseconds: 1000000 # more for a network that takes as long for a few of them
    timeout_action: REJECT
    allow_timeout_override: true # a request may ask for less, not for more
  }}
}}

{instances}
version_policy {{ latest {{ num_versions: 1 }} }}

{warm}
model_warmup [
{warmups}
]
"""
_BATCHED = """\
# What waits is batched, and what is too much is refused. No max_queue_delay_microseconds beside a queue policy, and
# three instances or more: Triton stalls otherwise (docs/how-to/overload.md)."""
_BATCHLESS = """\
# Requests run one by one, as the network takes no batches: with max_batch_size 0 the batcher makes none, and is here
# for its queue, where what is too much is refused. Three instances or more: Triton stalls otherwise
# (docs/how-to/overload.md)."""


@contextmanager
def written(model_directory: Path, spec: ModelSpec, samples: Split | None = None) -> Iterator[list[Path]]:
    """Write the configurations that a brought graph lacks; remove them again if the block ends with an error.

    A configuration without a version would keep every server from starting.
    """
    made = write_configs(model_directory, spec, samples)
    try:
        yield made
    except BaseException:
        for path in made:
            path.unlink()
        for folder in (model_directory / "configs", model_directory / WARMUP, model_directory):
            empty = folder.is_dir() and not any(path for path in folder.iterdir() if path.name != ".publish.lock")
            if made and empty:
                shutil.rmtree(folder)
        raise


def write_configs(model_directory: Path, spec: ModelSpec, samples: Split | None = None) -> list[Path]:
    """Write the configurations that a brought graph lacks; what is there already is left as it is.

    Args:
        samples: What a warm-up is taken from; without them it is noise and zeros.

    Raises:
        ModelConfigError: Triton has no such type as an input's or an output's.
    """
    lacking = [name for name in CONFIGS if not (model_directory / name).exists()]
    if not lacking:
        return []
    sample = None if samples is None else _usual(samples, spec)
    contents = {name: _generated(spec, sample, cpu=name != CONFIGS[0]).encode() for name in lacking}
    for name, values in (sample or {}).items():
        contents[f"{WARMUP}/{_file(name, spec)}"] = _bytes(values)
    made = []
    for name, content in contents.items():
        path = model_directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
            made.append(path)
    return made


def _generated(spec: ModelSpec, sample: Batch | None, *, cpu: bool) -> str:
    tensorrt = not cpu and _on_tensorrt(spec)
    cc = "\n".join(f'cc_model_filenames {{ key: "{cc}" value: "{file}" }}' for cc, file in cc_model_filenames().items())
    plan = f'platform: "tensorrt_plan"\ndefault_model_filename: "model.plan"\n{cc}'
    return _TEMPLATE.format(
        model=spec.model,
        other="The GPU's is ../config.pbtxt." if cpu else "configs/cpu.pbtxt is the same without a GPU.",
        runtime=plan if tensorrt else 'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"',
        max_batch=spec.max_batch,
        inputs=",\n".join(_tensor(tensor, spec.batched) for tensor in spec.inputs),
        outputs=",\n".join(_tensor(tensor, spec.batched) for tensor in spec.outputs),
        batching=_BATCHED if spec.batched else _BATCHLESS,
        preferred=f"\n  preferred_batch_size: {_preferred(spec)}" if spec.batched else "",
        instances=_instances(spec, cpu=cpu, tensorrt=tensorrt),
        warm=_warm(spec, sample),
        warmups=",\n".join(_warmup(name, size, spec, sample) for name, size in _warmup_batches(spec).items()),
    )


def _on_tensorrt(spec: ModelSpec) -> bool:
    """Tell whether Triton's TensorRT backend can serve it."""
    tensors = (*spec.inputs, *spec.outputs)
    return spec.tensorrt and all(
        tensor.shape and _triton(tensor).removeprefix("TYPE_") in _TENSORRT_TYPES for tensor in tensors
    )


def _tensor(tensor: TensorSpec, batched: bool) -> str:
    dims = list(dims_of(tensor)[batched:])
    # Triton has no scalars: a number a sample is a [1] to clients, and without a batch for the backend as well.
    shape = f"dims: {dims}" if dims else "dims: [ 1 ] reshape { shape: [ ] }" if batched else "dims: [ 1 ]"
    return f"  {{ name: {_quoted(tensor.name)} data_type: {_triton(tensor)} {shape} }}"


def _preferred(spec: ModelSpec) -> list[int]:
    # Without a delay a preferred size of 1 would be preferred to all that waits.
    return sorted({spec.batch.opt, spec.batch.max} - {1}) or [1]


def _cpu_instances(cores: int) -> str:
    """Return what makes use of the machine's cores: a thread each, and where there are many, some to an instance."""
    instances = min(max(cores, _FEWEST_INSTANCES), _MOST_INSTANCES)
    threads = max(1, cores // instances)
    return (
        f"# For the {cores} cores of the machine that wrote this. The threads of an instance spin between two calls.\n"
        f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]\n"
        f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}'
    )


def _instances(spec: ModelSpec, *, cpu: bool, tensorrt: bool) -> str:
    if cpu:
        return _cpu_instances(len(os.sched_getaffinity(0)))
    if spec.without_tensorrt is None:
        return _gpu_instances(tensorrt=tensorrt)
    return (
        f"# {spec.without_tensorrt}: it was proven on a CPU alone, and runs there on a machine with a GPU as well.\n"
        f"instance_group [ {{ kind: KIND_CPU count: {_FEWEST_INSTANCES} }} ]"
    )


def _gpu_instances(*, tensorrt: bool) -> str:
    group = f"instance_group [ {{ kind: KIND_GPU count: {_FEWEST_INSTANCES} }} ]"
    if not tensorrt:
        return f"# TensorRT's backend has no scalars, and not all of the types: here it is onnxruntime.\n{group}"
    return (
        f"{group}\n\n"
        "# One sample, preferred sizes and the fullest batch are launched as a CUDA graph each, in the shapes that\n"
        "# the engine is tuned for, as it was timed; all else kernel by kernel.\n"
        "optimization { cuda { graphs: true } }"
    )


def _warm(spec: ModelSpec, sample: Batch | None) -> str:
    what = "with the sample in warmup/" if sample else "with noise and zeros"
    sizes = ": one sample, what the engine is tuned for, and the fullest batch" if spec.batched else ""
    return f"# Before the first request, {what}{sizes}."


def _warmup_batches(spec: ModelSpec) -> dict[str, int]:
    """Return {name: batch size} of the warmups; of equal sizes the first name."""
    if not spec.batched:  # Triton skips those of batch size 0
        return {"one": 1}
    wanted = {"one": 1, "preferred": spec.batch.opt, "full": spec.batch.max}
    names = {size: name for name, size in reversed(wanted.items())}
    return {name: size for name, size in wanted.items() if names[size] == name}


def _warmup(name: str, batch: int, spec: ModelSpec, sample: Batch | None) -> str:
    values = "\n".join(_warmup_input(tensor, spec, sample) for tensor in spec.inputs)
    return f'  {{\n    name: "{name}"\n    batch_size: {batch}\n{values}\n  }}'


def _warmup_input(tensor: TensorSpec, spec: ModelSpec, sample: Batch | None) -> str:
    if sample is not None:
        dims, data = sample[tensor.name].shape, f'input_data_file: "{_file(tensor.name, spec)}"'
    else:
        dims = tensor.shape_at("opt")[spec.batched :]
        # Random integers would be tokens that no vocabulary has.
        data = "random_data: true" if np.dtype(tensor.dtype).kind == "f" else "zero_data: true"
    value = f"data_type: {_triton(tensor)} dims: {list(dims) or [1]} {data}"
    return f"    inputs {{ key: {_quoted(tensor.name)} value {{ {value} }} }}"


def _usual(samples: Split, spec: ModelSpec) -> Batch:
    """Return a sample of about the shapes that the engine is tuned for, without the axis of samples."""
    wanted = {tensor.name: tensor.shape_at("opt")[spec.batched :] for tensor in spec.inputs}

    def distance(group: Group) -> int:
        shapes: Mapping[str, tuple[int, ...]] = {name: values.shape[1:] for name, values in group.inputs.items()}
        return sum(abs(a - b) for name, opt in wanted.items() for a, b in zip(shapes[name], opt, strict=True))

    return {name: values[0] for name, values in min(samples.groups, key=distance).inputs.items()}


def _bytes(values: NDArray[Any]) -> bytes:
    """Return a tensor as Triton holds it; before each string its length in 4 bytes, little-endian."""
    if np.asarray(values).dtype.kind not in "OSU":
        return np.ascontiguousarray(values).tobytes()
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in np.asarray(values).ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _file(name: str, spec: ModelSpec) -> str:
    """Return the file that a tensor's warm-up lies in: there may be slashes in names of tensors, and anything else."""
    return name if is_model_name(name) else f"input-{[tensor.name for tensor in spec.inputs].index(name)}"


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))


def _triton(tensor: TensorSpec) -> str:
    from tritonclient.utils import np_to_triton_dtype

    dtype = np.dtype(tensor.dtype)
    if dtype.kind in "OSU":
        return "TYPE_STRING"
    if (name := np_to_triton_dtype(dtype)) is None:
        raise ModelConfigError(f"{tensor.name!r} is {tensor.dtype}, a type that Triton does not serve")
    return f"TYPE_{name}"
