"""An ONNX graph from a trained module, with everything inside that must not differ in serving.

The graph takes what the client's preprocessing emits (small integers), normalises in float32, runs the
network in `precision`, and returns float32 logits and probabilities. FP16 is cast here, in PyTorch, rather
than in the finished graph: every operator is then typed by PyTorch's own rules and TensorRT, strongly typed
since 11, compiles exactly that.
"""

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export.errors import GraphError

# 19 is the first with per-axis float16 QuantizeLinear; onnxruntime 1.24 and TensorRT 11 both read 20.
_OPSET = 20
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def graph_from_module(module: pl.LightningModule, spec: ModelSpec, precision: str, path: Path) -> Path:
    """Write `module` as an ONNX graph to `path`, every DynamicDim of the spec dynamic.

    Args:
        module: Has `normalise`, to the network's float32 input, and `network`, to logits [B, classes].
        precision: "fp32" or "fp16"; "int8" is made from the fp32 graph, see export/precision.py.

    Raises:
        GraphError: PyTorch could not export it.
    """
    served = _Served(copy.deepcopy(module), _DTYPES[precision]).eval()
    example = tuple(_example(tensor) for tensor in spec.inputs)
    dynamic = tuple(_dynamic_dims(tensor) for tensor in spec.inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # "torchvision is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside PyTorch's own exporter
            program = torch.onnx.export(
                served,
                example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                opset_version=_OPSET,
                verbose=False,
            )
        assert program is not None  # dynamo=True and no file: always a program
        program.save(path, external_data=False)
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise GraphError(
            f"PyTorch could not export {spec.model} to ONNX",
            note=str(error).splitlines()[0],
            hint="look for Python control flow on tensor values in the module's forward pass",
        ) from error
    return path


class _Served(nn.Module):
    """What runs on the server: normalise in float32, the network in `dtype`, answers in float32."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype
        self.network = module.network.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.network(self.module.normalise(pixels).to(self.dtype)).float()
        return logits, logits.softmax(dim=1)


def _example(tensor: TensorSpec) -> Tensor:
    # Not a batch of 1: torch.export would treat that dimension as the constant 1.
    return torch.zeros(tensor.shape_at("opt"), dtype=getattr(torch, tensor.dtype))


def _dynamic_dims(tensor: TensorSpec) -> dict[int, torch.export.Dim]:
    return {
        axis: torch.export.Dim(dim.name, min=dim.min, max=dim.max)
        for axis, dim in enumerate(tensor.shape)
        if isinstance(dim, DynamicDim)
    }
