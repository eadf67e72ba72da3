"""An ONNX graph from a trained module, with everything inside that must not differ in serving.

The graph takes what the client's preprocessing emits (small integers), normalises, runs the network and returns
float32 logits and probabilities. It is FP32; FP16 and INT8 are made from it (export/precision), as they are from
a graph that was trained elsewhere.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export import graphs
from export.errors import GraphError
from export.proof.runners import Batch, Runner

# 19 is the first with per-axis float16 QuantizeLinear; onnxruntime 1.24 and TensorRT 11 both read 20.
_OPSET = 20


def graph_from_module(module: pl.LightningModule, spec: ModelSpec, path: Path) -> Path:
    """Write `module` as an ONNX graph to `path`, every DynamicDim of the spec dynamic.

    Args:
        module: Has `normalise`, to the network's float32 input, and `network`, to logits [B, classes].

    Raises:
        GraphError: PyTorch could not export it.
    """
    served = _ServedModule(module).eval()
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
        onnx.save(graphs.normalise(program.model_proto), path)
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise GraphError(
            f"PyTorch could not export {spec.model} to ONNX",
            note=str(error).splitlines()[0],
            hint="look for Python control flow on tensor values in the module's forward pass",
        ) from error
    return path


def module_runner(module: pl.LightningModule, spec: ModelSpec) -> Runner:
    """Make a runner of `module` itself, in PyTorch: what every variant of it is compared with."""
    served = _ServedModule(module).eval()

    def run(batch: Batch) -> Batch:
        with torch.inference_mode():
            outputs = served(*(torch.from_numpy(batch[tensor.name].copy()) for tensor in spec.inputs))
        return {tensor.name: output.numpy() for tensor, output in zip(spec.outputs, outputs, strict=True)}

    return run


class _ServedModule(nn.Module):
    """The part of a module that runs on the server: normalise, the network, its answers."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.network, self.normalise = module.network, module.normalise

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, both [B, classes]."""
        logits: Tensor = self.network(self.normalise(pixels))
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
