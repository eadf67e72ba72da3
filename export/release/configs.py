"""Write the configurations of a brought graph from its spec: the GPU's config.pbtxt and the CPU's configs/cpu.pbtxt."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from contracts.spec import ModelSpec, TensorSpec
from export.proof.contract import CONFIGS, dims_of
from export.proof.engine import cc_model_filenames

_TEMPLATE = """\
# Written by python -m export from the spec of {model}; yours to change. {other}
name: "{model}"
{runtime}
max_batch_size: {batch_max}

input [
{inputs}
]
output [
{outputs}
]

# Batch what is waiting, up to what the engine is tuned for, and wait at most 0.5 ms for it.
dynamic_batching {{
  preferred_batch_size: [ {batch_opt} ]
  max_queue_delay_microseconds: 500
}}

instance_group [ {{ kind: {kind} count: 1 }} ]
version_policy {{ latest {{ num_versions: 1 }} }}

# Before the first request: one sample, what the engine is tuned for, and the fullest batch.
model_warmup [
{warmups}
]
"""


@contextmanager
def written(model_directory: Path, spec: ModelSpec) -> Iterator[list[Path]]:
    """Write the configurations that a brought graph lacks; remove them again if the block ends with an error.

    A configuration without a version would keep every server from starting.
    """
    made = write_configs(model_directory, spec)
    try:
        yield made
    except BaseException:
        for path in made:
            path.unlink()
        for folder in (model_directory / "configs", model_directory):
            if made and not any(path for path in folder.iterdir() if path.name != ".publish.lock"):
                shutil.rmtree(folder)
        raise


def write_configs(model_directory: Path, spec: ModelSpec) -> list[Path]:
    """Write the configurations that a brought graph lacks; what is there already is left as it is."""
    made = []
    for name in CONFIGS:
        path = model_directory / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_generated(spec, cpu=name != CONFIGS[0]))
            made.append(path)
    return made


def _generated(spec: ModelSpec, *, cpu: bool) -> str:
    cc = "\n".join(f'cc_model_filenames {{ key: "{cc}" value: "{file}" }}' for cc, file in cc_model_filenames().items())
    gpu = f'platform: "tensorrt_plan"\ndefault_model_filename: "model.plan"\n{cc}'
    return _TEMPLATE.format(
        model=spec.model,
        other="The GPU's is ../config.pbtxt." if cpu else "configs/cpu.pbtxt is the same without a GPU.",
        runtime='backend: "onnxruntime"\ndefault_model_filename: "model.onnx"' if cpu else gpu,
        kind="KIND_CPU" if cpu else "KIND_GPU",
        batch_max=spec.batch.max,
        batch_opt=spec.batch.opt,
        inputs=",\n".join(_tensor(tensor) for tensor in spec.inputs),
        outputs=",\n".join(_tensor(tensor) for tensor in spec.outputs),
        warmups=",\n".join(_warmup(name, batch, spec.inputs) for name, batch in _warmup_batches(spec).items()),
    )


def _tensor(tensor: TensorSpec) -> str:
    return f'  {{ name: "{tensor.name}" data_type: {_triton(tensor)} dims: {list(dims_of(tensor)[1:])} }}'


def _warmup_batches(spec: ModelSpec) -> dict[str, int]:
    """Return {name: batch size} of the warmups; of equal sizes the first name."""
    wanted = {"one": 1, "preferred": spec.batch.opt, "full": spec.batch.max}
    names = {size: name for name, size in reversed(wanted.items())}
    return {name: size for name, size in wanted.items() if names[size] == name}


def _warmup(name: str, batch: int, inputs: Sequence[TensorSpec]) -> str:
    values = "\n".join(_warmup_input(tensor) for tensor in inputs)
    return f'  {{\n    name: "{name}"\n    batch_size: {batch}\n{values}\n  }}'


def _warmup_input(tensor: TensorSpec) -> str:
    dims = list(tensor.shape_at("opt")[1:])
    # Random integers would be tokens that no vocabulary has.
    data = "random_data" if np.dtype(tensor.dtype).kind == "f" else "zero_data"
    value = f"data_type: {_triton(tensor)} dims: {dims} {data}: true"
    return f'    inputs {{ key: "{tensor.name}" value {{ {value} }} }}'


def _triton(tensor: TensorSpec) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return f"TYPE_{np_to_triton_dtype(np.dtype(tensor.dtype))}"
