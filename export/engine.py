"""TensorRT engines from ONNX graphs: one builder for `tensorrt` (data centre) and `tensorrt_rtx`.

TensorRT-RTX builds without a GPU, so any machine can prove that TensorRT parses and compiles a graph; its
engines are that proof and are thrown away. `.plan` files for Triton are built by `tensorrt` on the GPU.

Both are strongly typed: the graph's types are what is computed. TF32 is switched off, so that fp32 means it.
"""

import importlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from contracts.manifest import Engine
from contracts.spec import ModelSpec
from export.errors import CompileError, EngineError

Library = Literal["tensorrt", "tensorrt_rtx"]

_INSTALL = {
    "tensorrt": "on a machine with an NVIDIA GPU: .venv/bin/pip install '.[gpu]'",
    "tensorrt_rtx": "make setup",
}


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine and what is known of it."""

    plan: bytes
    facts: Engine


def require(library: Library) -> None:
    """Fail before any work is done if engines cannot be built with `library` here.

    Raises:
        EngineError: the library is missing, or its plans could not be run for want of a GPU that PyTorch sees.
    """
    _import(library)
    if library == "tensorrt":
        import torch

        if not torch.cuda.is_available():
            raise EngineError(
                "the target tensorrt needs an NVIDIA GPU and a torch built for CUDA",
                note=f"torch {torch.__version__} sees no GPU",
                hint="on a machine without one, leave --target away: the engines are then compiled as a check",
            )


def build(graph: Path, spec: ModelSpec, library: Library) -> BuiltEngine:
    """Parse `graph` and compile it, with an optimization profile from the spec's dynamic dimensions.

    Raises:
        EngineError: the library is missing.
        CompileError: it refused the graph, with its own messages.
    """
    trt = _import(library)
    log = _collecting_logger(trt)
    started = time.monotonic()
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as error:  # `tensorrt` cannot even start without a driver
        raise EngineError(f"{library} cannot start here", note=str(error), hint=_INSTALL[library]) from error
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reasons = [parser.get_error(i).desc().splitlines()[0] for i in range(parser.num_errors)]
        raise CompileError(f"{library} cannot parse {graph.name}", note="; ".join(reasons))
    config = builder.create_builder_config()
    # On by default, and the one way left to compute less precisely than the graph says: 10 bits instead of 23.
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for tensor in spec.inputs:
        profile.set_shape(tensor.name, tensor.shape_at("min"), tensor.shape_at("opt"), tensor.shape_at("max"))
    config.add_optimization_profile(profile)
    share = dtype_share(network, trt)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompileError(f"{library} cannot compile {graph.name}", note="; ".join(log.errors) or None)
    data = bytes(plan)
    version = f"{library} {trt.__version__}"
    return BuiltEngine(data, Engine(version, len(data), round(time.monotonic() - started, 3), share))


def dtype_share(network: Any, trt: ModuleType) -> Mapping[str, float]:
    """Share of convolution and matrix-multiply layers by the dtype they compute in.

    A layer fed by DequantizeLinear computes in the quantized dtype: TensorRT fuses the pair into it.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producer = {layer.get_output(o).name: layer for layer in layers for o in range(layer.num_outputs)}
    heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)

    def computed_in(layer: Any) -> str:
        tensor = layer.get_input(0)
        source = producer.get(tensor.name)
        if source is not None and source.type == trt.LayerType.DEQUANTIZE:
            tensor = source.get_input(0)
        return str(tensor.dtype).removeprefix("DataType.")

    counts = Counter(computed_in(layer) for layer in layers if layer.type in heavy)
    return {dtype: round(count / counts.total(), 4) for dtype, count in counts.most_common()}


def _import(library: Library) -> ModuleType:
    try:
        return importlib.import_module(library)
    except (ImportError, OSError) as error:
        raise EngineError(f"{library} is not installed", note=str(error), hint=_INSTALL[library]) from error


def _collecting_logger(trt: ModuleType) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # the library is chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message.splitlines()[0])

    return Log()
