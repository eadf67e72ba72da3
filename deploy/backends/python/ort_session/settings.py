"""What config.pbtxt sets of onnxruntime, by the native backend's names: of sessions, of runs, of CUDA.

https://github.com/triton-inference-server/onnxruntime_backend#model-config-options
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import onnxruntime as ort
from python_based.config import HINTS, ModelConfig, refuse
from python_based.errors import ModelError

_LEVELS = {  # by the native backend's numbers
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_MODES = {"0": ort.ExecutionMode.ORT_SEQUENTIAL, "1": ort.ExecutionMode.ORT_PARALLEL}
_BOOLS = {"0": False, "1": True, "false": False, "true": True, "off": False, "on": True}
# Parameters of config.pbtxt, and what they set in onnxruntime's SessionOptions.
_THREADS = {"intra_op_thread_count": "intra_op_num_threads", "inter_op_thread_count": "inter_op_num_threads"}
_SWITCHES = {"enable_mem_arena": "enable_cpu_mem_arena", "enable_mem_pattern": "enable_mem_pattern"}
_ENTRIES = (  # by onnxruntime's own names
    "session.intra_op.allow_spinning",
    "session.inter_op.allow_spinning",
    "session.use_device_allocator_for_initializers",
)
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"  # an entry of a run: after it these arenas are freed, "cpu:0"
_CUDA: Mapping[str, Mapping[str, str] | None] = {  # what they set of CUDA's provider; None: as it is
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "gpu_mem_limit": None,
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
    "do_copy_in_default_stream": None,
}
_KNOWN = (*_THREADS, *_SWITCHES, *_ENTRIES, *_CUDA, _SHRINKAGE, "execution_mode")


def session_options(config: ModelConfig) -> ort.SessionOptions:
    """Make the options of a model's session, its libraries of custom operators among them.

    Raises:
        ModelError: a value is none of those that there are, a parameter is all but one that is known, or a library
            cannot be loaded.
    """
    refuse("optimization", config.optimization, ["graph", "execution_accelerators", *HINTS])
    refuse("parameters", [name for name in config.parameters if _is_mistyped(name)], _KNOWN)
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS.get(_level(config), ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    for name, text in config.parameters.items():
        if name in _THREADS:
            if not text.isdecimal():
                raise ModelError(f"{name} is {text!r}, not a number of threads (0: as many as there are cores)")
            setattr(options, _THREADS[name], int(text))
        elif name in _SWITCHES:
            setattr(options, _SWITCHES[name], _known(name, _BOOLS, text.lower()))
        elif name in _ENTRIES:
            options.add_session_config_entry(name, str(int(_known(name, _BOOLS, text.lower()))))
        elif name == "execution_mode":
            options.execution_mode = _known(name, _MODES, text)
    for library in config.libraries:
        try:
            options.register_custom_ops_library(library)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(f"model_operations: onnxruntime cannot load {library}: {error}") from error
    return options


def run_options(config: ModelConfig) -> ort.RunOptions:
    """Make the options of a model's runs."""
    options = ort.RunOptions()
    options.log_severity_level = 4  # what fails is told to its client; it is nothing to fill a log with
    if _SHRINKAGE in config.parameters:
        options.add_run_config_entry(_SHRINKAGE, config.parameters[_SHRINKAGE])
    return options


def providers(config: ModelConfig) -> list[Any]:
    """Return the execution providers of an instance.

    Raises:
        ModelError: they are not here.
    """
    accelerators = _accelerators(config)
    refuse("cpu_execution_accelerator", [a["name"] for a in accelerators.get("cpu_execution_accelerator", ())], ())
    if config.kind != "GPU":  # the native backend computes KIND_MODEL on the CPU, too
        return ["CPUExecutionProvider"]
    chosen = {a["name"]: a.get("parameters", {}) for a in accelerators.get("gpu_execution_accelerator", ())}
    refuse("gpu_execution_accelerator", chosen, ["cuda"])
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ModelError(
            "instance_group: kind is KIND_GPU, which the installed onnxruntime was not built for; "
            "set KIND_CPU, or install onnxruntime-gpu in place of onnxruntime in the server's environment"
        )
    deprecated = {
        name: text if (values := _CUDA[name]) is None else _known(name, values, text)
        for name, text in config.parameters.items()
        if name in _CUDA
    }
    cuda = {**deprecated, **chosen.get("cuda", {}), "device_id": config.device}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def without_effect(config: ModelConfig) -> list[str]:
    """List what a configuration has that changes nothing here; most of it nothing in the native backend either."""
    on_gpu, parameters = config.kind == "GPU", config.parameters.keys()
    vain = {
        "optimization": config.hints,
        "parameters": sorted((parameters - {*_KNOWN}) | (set() if on_gpu else parameters & _CUDA.keys())),
        "gpu_execution_accelerator": []
        if on_gpu
        else [each["name"] for each in _accelerators(config).get("gpu_execution_accelerator", ())],
        "graph": [] if _level(config) in (*_LEVELS, 0) else [f"level: {_level(config)}"],
    }
    return [f"{what} {{ {' '.join(names)} }}" for what, names in vain.items() if names]


def _level(config: ModelConfig) -> int:
    return int(config.optimization.get("graph", {}).get("level", 0))


def _accelerators(config: ModelConfig) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.optimization.get("execution_accelerators", {})
    return found


def _is_mistyped(name: str) -> bool:
    """Tell whether a parameter is none of the known, and so like one that it is meant to be that."""
    return name not in _KNOWN and bool(get_close_matches(name, _KNOWN, 1, 0.75))


def _known(name: str, choices: Mapping[Any, Any], chosen: Any) -> Any:
    if chosen not in choices:
        raise ModelError(f"{name} is {chosen!r}, not one of {', '.join(map(str, choices))}")
    return choices[chosen]
