"""A network in a model repository without its weights, and its steps asked without a server."""

from pathlib import Path
from typing import Any

import numpy as np

from export.release import ensemble

TENSOR = '{{ name: "{name}" data_type: TYPE_{type} dims: [ {dims} ] }}'


def write_network(root: Path, *, batch: int = 4, output: str = "logits") -> Path:
    """A network's folder with its configurations alone: ids int64 [-1] and text string [1] to `output` float32 [2]."""
    inputs = ", ".join(
        TENSOR.format(name=n, type=t, dims=d) for n, t, d in (("ids", "INT64", -1), ("text", "STRING", 1))
    )
    config = (
        f'name: "net" backend: "onnxruntime" max_batch_size: {batch}\ninput [ {inputs} ]\n'
        f"output [ {TENSOR.format(name=output, type='FP32', dims=2)} ]\n"
        'model_warmup [ { name: "one" batch_size: 1'
        ' inputs { key: "ids" value { data_type: TYPE_INT64 dims: [ 3 ] zero_data: true } } } ]\n'
    )
    for name in ("config.pbtxt", "configs/cpu.pbtxt"):
        path = root / "net" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config)
    return root / "net"


def asked(repository: Path, name: str, wanted: list[str], **inputs: Any) -> dict[str, Any]:
    return ensemble.run_step(repository / name, inputs, wanted)


def texts(*values: bytes) -> Any:
    return np.array(values, np.object_).reshape(-1, 1)
