"""TensorRT engines from ONNX graphs: one builder for `tensorrt` (data centre) and `tensorrt_rtx`.

TensorRT-RTX builds without a GPU, so any machine can prove that TensorRT parses and compiles a graph; its
engines are that proof and are thrown away. Plans for Triton are built by `tensorrt` on the GPU.

Both are strongly typed: the graph's types are what is computed. TF32 is switched off, so that fp32 means it.
"""

import importlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from contracts.engines import library
from contracts.engines.plans import same_version, version_of
from contracts.manifest import Compatibility, Engine
from contracts.spec import ModelSpec
from export import tools
from export.errors import CompileError, EngineError
from export.proof.layers import dtype_share

Library = Literal["tensorrt", "tensorrt_rtx"]
Profile = Mapping[str, tuple[tuple[int, ...], ...]]  # {input: its min, opt and max shape}

# The bindings alone, over an image's own library, have no package of the library's name.
_PACKAGES: Mapping[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx",),
}
_INSTALL = {
    "tensorrt": "build in the server's own image (Dockerfile.triton, stage export), or on a machine with an NVIDIA "
    "GPU: .venv/bin/pip install --no-deps --require-hashes -r deploy/server-gpu.lock",
    "tensorrt_rtx": "make setup",
}
_AMPERE = (8, 0)


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built."""

    library: Library = "tensorrt_rtx"
    # The GPUs that a plan runs on beside the one that built it. Plans are filed by compute capability, so all of that.
    compatibility: Compatibility = "same_compute_capability"
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
        EngineError: the library is missing or not the server's, or there is no GPU that PyTorch sees or that can build
            what was asked for.
    """
    load(options.library)
    if options.library == "tensorrt_rtx":
        return
    if not same_version(built_by := library_version(), server_tensorrt):
        raise EngineError(
            f"TensorRT {built_by} builds plans that the server's TensorRT {server_tensorrt} cannot load",
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
    if options.compatibility == "ampere_plus" and (found := torch.cuda.get_device_capability()) < _AMPERE:
        raise EngineError(
            f"a plan for Ampere and everything newer is built on such a GPU, not on compute capability "
            f"{found[0]}.{found[1]}",
            hint="leave --hardware-compatible away",
        )


def library_version() -> str:
    """Return the version of the TensorRT that is loaded, as the library itself says it: its bindings only claim one.

    Raises:
        EngineError: it does not say.
    """
    try:
        return library.said(library.LIBRARY)
    except (OSError, AttributeError) as error:
        raise EngineError(f"{library.LIBRARY} does not say its version", note=str(error)) from error


def load(name: Library) -> ModuleType:
    """Import a TensorRT's Python bindings.

    Raises:
        EngineError: they are not installed, or find no library.
    """
    reasons = []
    for package in _PACKAGES[name]:
        try:
            return importlib.import_module(package)
        except (ImportError, OSError) as error:
            reasons.append(str(error))
    raise EngineError(f"{name} is not installed", note="; ".join(reasons), hint=_INSTALL[name])


def build(graph: Path, spec: ModelSpec, options: BuildOptions) -> BuiltEngine:
    """Parse `graph` and compile it, with an optimization profile from the spec's dynamic dimensions.

    Raises:
        EngineError: the library is missing.
        CompileError: it refused the graph, with its own messages.
    """
    trt = load(options.library)
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
        reasons = [_parse_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise CompileError(f"{options.library} cannot parse {graph.name}", note="; ".join(reasons))
    _fix_inputs(network, spec)
    config = _config(trt, builder, spec, options)
    try:
        share, io_tensors = dtype_share(network, trt), _io_tensors(network, trt)
    except (RuntimeError, ValueError) as error:  # of branches whose shapes do not go together
        raise CompileError(
            f"{options.library} cannot tell the shapes in {graph.name}", note="; ".join(log.errors) or str(error)
        ) from error
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
        library=f"{options.library} {version_of(data) or trt.__version__}",
        size_bytes=len(data),
        build_s=round(time.monotonic() - started, 3),
        dtype_share=share,
        profile=profile_of(spec),
        **(_for_gpus(options) if options.library == "tensorrt" else {}),
    )
    return BuiltEngine(data, facts, io_tensors, "\n".join(log.lines))


def profile_of(spec: ModelSpec) -> Profile:
    """Return the optimization profile of a spec's inputs."""
    return {tensor.name: tuple(tensor.shape_at(end) for end in ("min", "opt", "max")) for tensor in spec.inputs}


def _fix_inputs(network: Any, spec: ModelSpec) -> None:
    """Give the inputs the sizes that the spec fixes: a graph with branches may have left them open."""
    wanted = {t.name: tuple(d if isinstance(d, int) else -1 for d in t.shape) for t in spec.inputs}
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        shape, fixed = tuple(tensor.shape), wanted.get(tensor.name, ())
        if len(shape) == len(fixed) and shape != fixed:
            tensor.shape = tuple(f if s == -1 else s for s, f in zip(shape, fixed, strict=True))


def _parse_error(error: Any) -> str:
    """Say at which node the parser failed, and why: an operator that it does not know it looks for as a plugin."""
    lines = error.desc().splitlines() or [""]
    reason = lines[1] if lines[0].startswith("Invalid Node") and len(lines) > 1 else lines[0]
    reason = re.sub(r"^.*API Usage Error \(|\.? In \w+ at /_src.*$", "", reason)  # where in its own sources
    if "Plugin not found" in reason or reason == "false":
        reason = "TensorRT has no such operator"
    return f"the node {error.node_name()} ({error.node_operator()}): {reason}" if error.node_operator() else reason


def _config(trt: ModuleType, builder: Any, spec: ModelSpec, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    # On by default, and the one way left to compute less precisely than the graph says: 10 bits instead of 23.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector shall say what runs
    if options.library == "tensorrt":  # TensorRT-RTX compiles for a GPU when it loads an engine there
        level = options.compatibility.upper()
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
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


def _for_gpus(options: BuildOptions) -> dict[str, Any]:
    """Describe the machine that built a plan and the GPUs that it is for, in an Engine's fields."""
    import pynvml
    import torch

    driver = None
    with suppress(pynvml.NVMLError):  # a container may have CUDA alone
        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        pynvml.nvmlShutdown()
    major, minor = torch.cuda.get_device_capability()
    return {
        "cuda": torch.version.cuda,
        "driver": driver,
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "compatibility": options.compatibility,
        "hardware_compatible": options.compatibility == "ampere_plus",
    }


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
