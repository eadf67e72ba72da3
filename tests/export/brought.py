"""A graph as text, its spec as its own inputs and outputs say it, and samples: what `python -m export --onnx` takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from contracts.samples import save_arrays

BATCH = '{ name = "batch", min = 1, opt = 4, max = 8 }'
N = 40


def parsed(text: str, *, opset: int = 17, ir: int = 8, domains: Mapping[str, int] | None = None) -> ModelProto:
    """A graph from onnx's own text: "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"."""
    imports = ", ".join(f'"{domain}": {version}' for domain, version in {"": opset, **(domains or {})}.items())
    found: ModelProto = onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{imports}]> g {text}")
    return found


def with_weights(model: ModelProto, **weights: NDArray[Any]) -> ModelProto:
    """The graph with these initializers as well."""
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    return model


def bring(
    folder: Path, model: ModelProto, samples: Mapping[str, NDArray[Any]], *, precisions: Sequence[str] = ("fp32",),
    dtypes: Mapping[str, str] | None = None, more: str = "",
) -> list[str]:  # fmt: skip
    """Write all three into a folder; return the arguments that name them.

    Args:
        dtypes: What the spec calls the types of these tensors instead of numpy's names.
        more: Lines at the spec's begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    text = f'model = "{folder.name}"\ntask = "values"\n{more}\n'
    for kind, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        for value in (v for v in values if v.name not in weights):
            tensor = value.type.tensor_type
            dtype = (dtypes or {}).get(value.name, str(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))))
            dims = ", ".join(str(d.dim_value) if d.HasField("dim_value") else BATCH for d in tensor.shape.dim)
            text += f'[[{kind}]]\nname = "{value.name}"\ndtype = "{dtype}"\nshape = [{dims}]\n'
    tolerances = ", ".join(f'"{value.name}" = 0.5' for value in model.graph.output)
    for precision in precisions:
        text += f"[limits.{precision}]\ntolerance = {{ {tolerances} }}\ncomputed_share = 0.0\n"
    (folder / "spec.toml").write_text(text, encoding="utf-8")
    save_arrays(folder / "samples.npz", samples)
    return [
        "--onnx", str(folder / "model.onnx"), "--spec", str(folder / "spec.toml"),
        "--inputs", str(folder / "samples.npz"), "--no-register", "--search", "never",
    ]  # fmt: skip


def noise(*shape: int, dtype: str = "float32") -> NDArray[Any]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)
