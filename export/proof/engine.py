"""TensorRT engines from ONNX graphs: one builder for `tensorrt` (data centre) and `tensorrt_rtx`.

TensorRT-RTX builds without a GPU, so any machine can prove that TensorRT parses and compiles a graph; its
engines are that proof and are thrown away. Plans for Triton are built by `tensorrt` on the GPU.

Both are strongly typed: the graph's types are what is computed. TF32 is switched off, so that fp32 means it.
"""

import importlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from contracts.manifest import Engine, Gate
from contracts.spec import ModelSpec
from export import tools
from export.errors import CompileError, EngineError

Library = Literal["tensorrt", "tensorrt_rtx"]

# What Dockerfile.triton's server has. A plan of another version does not load there.
SERVER_TENSORRT = "11.1.0.106"
# The GPUs that config.pbtxt's cc_model_filenames name a plan for: Turing to Blackwell.
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")

_INSTALL = {
    "tensorrt": "on a machine with an NVIDIA GPU: .venv/bin/pip install '.[gpu]'",
    "tensorrt_rtx": "make setup",
}


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built."""

    library: Library = "tensorrt_rtx"
    hardware_compatible: bool = False  # for Ampere and everything newer, at some cost in speed
    timing_caches: Path | None = None  # folder of kernels timed before; makes rebuilding quicker and alike


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine and what is known of it."""

    plan: bytes
    facts: Engine
    io_tensors: tuple[Mapping[str, tuple[str, tuple[int, ...]]], ...]  # as graphs.io_tensors()'s
    log: str


def require(options: BuildOptions, server_tensorrt: str) -> None:
    """Fail before any work is done if engines cannot be built here, or not for the server.

    Args:
        server_tensorrt: The TensorRT version of the Triton that will load the plans.

    Raises:
        EngineError: the library is missing, is not the server's, or there is no GPU that PyTorch sees.
    """
    trt = _import(options.library)
    if options.library == "tensorrt_rtx":
        return
    if not same_version(trt.__version__, server_tensorrt):
        raise EngineError(
            f"TensorRT {trt.__version__} builds plans that the server's TensorRT {server_tensorrt} cannot load",
            hint="build in the server's own image (Dockerfile.triton, stage export), or name its version with "
            "--server-tensorrt",
        )
    import torch

    if not torch.cuda.is_available():
        raise EngineError(
            "the target tensorrt needs an NVIDIA GPU and a torch built for CUDA",
            note=f"torch {torch.__version__} sees no GPU",
            hint="on a machine without one, leave --target away: the engines are then compiled as a check",
        )


def build(graph: Path, spec: ModelSpec, options: BuildOptions) -> BuiltEngine:
    """Parse `graph` and compile it, with an optimization profile from the spec's dynamic dimensions.

    Raises:
        EngineError: the library is missing.
        CompileError: it refused the graph, with its own messages.
    """
    trt = _import(options.library)
    log = _collecting_logger(trt)
    started = time.monotonic()
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as error:  # `tensorrt` cannot even start without a driver
        raise EngineError(
            f"{options.library} cannot start here", note=str(error), hint=_INSTALL[options.library]
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reasons = [parser.get_error(i).desc().partition("\n")[0] for i in range(parser.num_errors)]
        raise CompileError(f"{options.library} cannot parse {graph.name}", note="; ".join(reasons))
    config = _config(trt, builder, spec, options)
    share, io_tensors = dtype_share(network, trt), _io_tensors(network, trt)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompileError(f"{options.library} cannot compile {graph.name}", note="; ".join(log.errors) or None)
    if (cache := _timing_cache(trt, options)) is not None and (timed := config.get_timing_cache()) is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        unfinished = cache.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(bytes(timed.serialize()))
        unfinished.replace(cache)
    data = bytes(plan)
    facts = Engine(
        library=f"{options.library} {trt.__version__}",
        size_bytes=len(data),
        build_s=round(time.monotonic() - started, 3),
        dtype_share=share,
        hardware_compatible=options.hardware_compatible,
        profile=profile_of(spec),
        **(_gpu() if options.library == "tensorrt" else {}),
    )
    return BuiltEngine(data, facts, io_tensors, "\n".join(log.lines))


def profile_of(spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the optimization profile, {input: its min, opt and max shape}."""
    return {tensor.name: tuple(tensor.shape_at(end) for end in ("min", "opt", "max")) for tensor in spec.inputs}


def dtype_share(network: Any, trt: ModuleType) -> Mapping[str, float]:
    """Return the share of convolution and matrix-multiply layers in each dtype, before TensorRT fuses them.

    A layer whose both operands are dequantized computes in the quantized dtype: TensorRT fuses the pairs into it.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producer = {layer.get_output(o).name: layer for layer in layers for o in range(layer.num_outputs)}
    heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)

    def computed_in(layer: Any) -> str:
        # A convolution has its weights as an input where they are computed, as dequantized ones are.
        operands = [layer.get_input(i) for i in range(min(layer.num_inputs, 2))]
        sources = [producer[o.name] for o in operands if o is not None and o.name in producer]
        if len(sources) == 2 and all(source.type == trt.LayerType.DEQUANTIZE for source in sources):
            return str(sources[0].get_input(0).dtype).removeprefix("DataType.")
        return str(operands[0].dtype).removeprefix("DataType.")

    return _share(Counter(computed_in(layer) for layer in layers if layer.type in heavy))


def inspected_share(information: str, heavy: Collection[str]) -> Mapping[str, float]:
    """Return the same share by what the engine inspector says of the built engine; empty if it names too few layers.

    TensorRT fuses: an engine layer says in its metadata which ONNX layers it came from.

    Args:
        information: The inspector's JSON, from an engine built with detailed profiling verbosity.
        heavy: The ONNX names of the layers that count.
    """
    names = {"int8": "INT8", "half": "HALF", "fp16": "HALF", "float": "FLOAT", "fp32": "FLOAT"}
    counts: Counter[str] = Counter()
    for layer in json.loads(information).get("Layers", []):
        # Without detailed verbosity: names alone. A reformatting layer is named after the one that it copies for.
        if not isinstance(layer, dict) or layer.get("LayerType") == "Reformat":
            continue
        said = f"{layer.get('Name', '')} {layer.get('Metadata', '')}"
        made_of = [name for name in heavy if re.search(rf"(?<![\w./]){re.escape(name)}(?![\w./])", said)]
        dtype = re.search(rf"\b({'|'.join(names)})\b", _datatype((layer.get("Inputs") or [{}])[0]).lower())
        if dtype:
            counts[names[dtype[0]]] += len(made_of)
    return _share(counts) if counts.total() * 2 >= len(heavy) and heavy else {}


def plan_version(plan: bytes) -> str | None:
    """Read the TensorRT version that built a plan from its header; None if it is no plan.

    The header is a tag ("ftrt", TensorRT-RTX: "vtrt"), and at byte 24 major, minor, patch and build: what NVIDIA's
    trtexec --getPlanVersionOnly reads.
    """
    if len(plan) < 28 or plan[:4] not in (b"ftrt", b"vtrt"):
        return None
    return ".".join(str(part) for part in plan[24:28])


def server_gate(plan: bytes, server_tensorrt: str) -> Gate:
    """Check that the server's TensorRT can load the plan: it has to be the very version that built it."""
    built_by = plan_version(plan) or "no TensorRT"
    return Gate("loads in the server's TensorRT", float(same_version(built_by, server_tensorrt)), 1, "at least",
                f"built by {built_by}, the server has {server_tensorrt}", id="server_tensorrt")  # fmt: skip


def same_version(actual: str, wanted: str) -> bool:
    """Tell whether `actual` is `wanted` as far as that says: "11.1.0.106" is the same as "11.1"."""
    return f"{actual}.".startswith(f"{wanted.rstrip('.')}.")


def cc_model_filenames() -> dict[str, str]:
    """Return {compute capability: the file such a GPU loads}, as in config.pbtxt."""
    return {cc: f"model.sm{cc.replace('.', '')}.plan" for cc in COMPUTE_CAPABILITIES}


def plan_files(facts: Engine) -> list[str]:
    """List the names a plan is published under: its GPU's, or every newer one's if it is hardware compatible."""
    files = cc_model_filenames()
    if facts.hardware_compatible:
        return [file for cc, file in files.items() if float(cc) >= 8.0]
    return [files.get(facts.compute_capability or "", "model.plan")]


def _config(trt: ModuleType, builder: Any, spec: ModelSpec, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    # On by default, and the one way left to compute less precisely than the graph says: 10 bits instead of 23.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector shall say what runs
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if (cache := _timing_cache(trt, options)) is not None:
        for known in (cache.read_bytes() if cache.exists() else b"", b""):
            timed = config.create_timing_cache(known)
            if timed is not None and config.set_timing_cache(timed, ignore_mismatch=False):
                break  # else it is damaged, or of another driver: begin a new one
    profile = builder.create_optimization_profile()
    for name, shapes in profile_of(spec).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    return config


def _timing_cache(trt: ModuleType, options: BuildOptions) -> Path | None:
    """Return the timing cache of this GPU and this TensorRT: timings are of no use to others."""
    if options.timing_caches is None:
        return None
    gpu = re.sub(r"\W+", "-", tools.gpu().get("gpu", "no GPU"))
    return options.timing_caches / f"{options.library}-{trt.__version__}-{gpu}.cache"


def _io_tensors(network: Any, trt: ModuleType) -> tuple[dict[str, tuple[str, tuple[int, ...]]], ...]:
    def described(tensor: Any) -> tuple[str, tuple[int, ...]]:
        return str(np.dtype(trt.nptype(tensor.dtype))), tuple(tensor.shape)

    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return {t.name: described(t) for t in inputs}, {t.name: described(t) for t in outputs}


def _gpu() -> dict[str, Any]:
    """Describe the machine that a plan is tied to, in an Engine's fields."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
    major, minor = torch.cuda.get_device_capability()
    return {"cuda": torch.version.cuda, "driver": driver, "compute_capability": f"{major}.{minor}"}


def _share(counts: "Counter[str]") -> Mapping[str, float]:
    return {dtype: round(count / counts.total(), 4) for dtype, count in counts.most_common() if count}


def _datatype(tensor: Mapping[str, Any]) -> str:
    """Return what TensorRT 11 has in "DataType"; 10 had it in "Format/Datatype", as "Row major linear FP16 format"."""
    return next((str(value) for key, value in tensor.items() if key.lower().endswith("datatype")), "")


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
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message.partition("\n")[0])
            if severity <= trt.ILogger.Severity.INFO:
                self.lines.append(f"[{str(severity).removeprefix('Severity.')}] {message}")

    return Log()
