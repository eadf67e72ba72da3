"""`backend: "onnxruntime"` for a Triton that only has its Python backend, such as the pip-installed one.

Serves the same model directory and config.pbtxt as Triton's native backend, and knows of its settings:
  default_model_filename, max_batch_size, reshape, optional inputs (max_batch_size: 0), scalars as dims: [ 1 ]
  instance_group  KIND_CPU; KIND_GPU where the installed onnxruntime is one with CUDA
  optimization    graph { level }, execution_accelerators { gpu_execution_accelerator [ { name: "cuda" … } ] }
  parameters      intra_op_thread_count, inter_op_thread_count, execution_mode, enable_mem_arena, enable_mem_pattern,
                  memory.enable_memory_arena_shrinkage, session.use_device_allocator_for_initializers;
                  of CUDA, deprecated: cudnn_conv_algo_search, gpu_mem_limit, arena_extend_strategy,
                  do_copy_in_default_stream; and, which the native one does not know,
                  session.intra_op.allow_spinning, session.inter_op.allow_spinning
https://github.com/triton-inference-server/onnxruntime_backend#model-config-options
Any other is refused, but for the hints of `optimization` (config.HINTS), which the native one does not read either.
Unlike it, this one holds requests to the shapes that the version was proven with (proven.py). Runs inside Triton.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from python_based import fit
from python_based.batching import Batcher, Feed
from python_based.bfloat16 import view_of
from python_based.config import HINTS, ModelConfig, refuse
from python_based.errors import ModelError, RequestError
from python_based.proven import ProvenRange

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_DTYPES = {
    **{f"tensor({name})": name.upper() for name in ("bool", "int8", "int16", "int32", "int64", "string")},
    **{f"tensor({name})": name.upper() for name in ("uint8", "uint16", "uint32", "uint64")},
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}
_LEVELS = {  # by the native backend's numbers
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_MODES = {"0": ort.ExecutionMode.ORT_SEQUENTIAL, "1": ort.ExecutionMode.ORT_PARALLEL}
_BOOLS = {"0": False, "1": True, "false": False, "true": True}
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


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graph; what is raised here is Triton's reason why the model did not load.

        Raises:
            ModelError: there is no such file, it does not fit config.pbtxt, or that asks for what is not supported.
        """
        config = ModelConfig.of(args)
        if config.hints:
            pb_utils.Logger.log_warn(f"without effect here: optimization {{ {' '.join(config.hints)} }}")
        self.session = _session(config)
        self.proven = ProvenRange(config)
        self.scalars = [node.name for node in _inputs(self.session, config) if not node.shape]
        self.strings = [tensor.name for tensor in config.inputs if tensor.dtype == "STRING"]
        self.bfloat16 = {tensor.name for tensor in (*config.inputs, *config.outputs) if tensor.dtype == "BF16"}
        if self.strings and self.bfloat16:
            raise ModelError("a graph with both STRING inputs and BF16 cannot be run from Python")
        self.run_options = ort.RunOptions()
        self.run_options.log_severity_level = 4  # what fails is told to its client; it is nothing to fill a log with
        if _SHRINKAGE in config.parameters:
            self.run_options.add_run_config_entry(_SHRINKAGE, config.parameters[_SHRINKAGE])
        self.on_cpu = config.kind == "CPU"
        self.batcher = Batcher(config, self._run)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, in their order."""
        return self.batcher.respond(requests)

    def _run(self, feeds: Sequence[Feed], wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        self.proven.check(feeds[0])  # which are of equal shapes
        feed = dict(feeds[0]) if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in feeds[0]}
        for name in self.strings:
            if name in feed:
                feed[name] = _decoded(name, feed[name])
        for name in self.scalars:  # onnxruntime would take a [1], and give answers of one dimension more
            if name in feed:
                feed[name] = feed[name].reshape(())
        try:
            if self.bfloat16:
                return self._run_values(feed, wanted)
            # Neither way copied: the session reads numpy's memory, and its results are arrays over its own.
            return self.session.run(wanted, feed, self.run_options)  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime's exceptions share no base class
            if "[ONNXRuntimeError]" not in str(error):
                raise
            raise self._blamed(error) from error

    def _run_values(self, feed: Feed, wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Do the same with BF16, for which numpy has no type: as onnxruntime's own values, not copied either."""
        typed, plain = ort.OrtValue.ortvalue_from_numpy_with_onnx_type, ort.OrtValue.ortvalue_from_numpy
        values = {n: typed(array, _BFLOAT16) if n in self.bfloat16 else plain(array) for n, array in feed.items()}
        results = zip(wanted, self.session.run_with_ort_values(wanted, values, self.run_options), strict=True)
        return [view_of(v._get_c_value()) if n in self.bfloat16 else v.numpy() for n, v in results]

    def _blamed(self, error: Exception) -> Exception:
        """Turn an error into one that says whose fault the failed run is.

        On a CPU a node that fails fails by the values that came in, all else being constant, unless memory is short.
        """
        message = _told(error)
        by_its_values = self.on_cpu and " while running " in message and "alloc" not in message
        its_fault = by_its_values or type(error).__name__ == "InvalidArgument"
        return RequestError(message) if its_fault else ModelError(message)


def _session(config: ModelConfig) -> ort.InferenceSession:
    file = config.default_file or "model.onnx"
    path = config.directory / file
    if path.is_dir():  # a graph and its weights, as the native backend takes them
        path /= "model.onnx"
    if not path.is_file():
        raise ModelError(f"version {config.directory.name} has no {file}")
    options, providers = _options(config), _providers(config)
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise ModelError(f"onnxruntime cannot load {file}: {_told(error).replace(str(path), file)}") from error
    if config.kind == "GPU" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ModelError("onnxruntime could not start CUDA: a library or the driver is missing, see the server's log")
    inputs, outputs = _file_tensors(_inputs(session, config)), _file_tensors(session.get_outputs())
    optional = {node.name for node in session.get_overridable_initializers()}
    fit.require(config, file, inputs, outputs, optional, exact=True)
    return session


def _inputs(session: ort.InferenceSession, config: ModelConfig) -> list[Any]:
    """List the inputs that the graph needs, and those of its optional ones that are configured."""
    given = {tensor.name for tensor in config.inputs}
    return [*session.get_inputs(), *(node for node in session.get_overridable_initializers() if node.name in given)]


def _providers(config: ModelConfig) -> list[Any]:
    accelerators = config.optimization.get("execution_accelerators", {})
    refuse("cpu_execution_accelerator", [a["name"] for a in accelerators.get("cpu_execution_accelerator", ())], ())
    chosen = {a["name"]: a.get("parameters", {}) for a in accelerators.get("gpu_execution_accelerator", ())}
    refuse("gpu_execution_accelerator", chosen, ["cuda"])
    if config.kind == "CPU":
        return ["CPUExecutionProvider"]
    if config.kind != "GPU":
        raise ModelError(f"instance_group: kind is KIND_{config.kind}; this backend knows KIND_CPU and KIND_GPU")
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


def _options(config: ModelConfig) -> ort.SessionOptions:
    refuse("optimization", config.optimization, ["graph", "execution_accelerators", *HINTS])
    refuse("parameters", config.parameters, [*_THREADS, *_SWITCHES, *_ENTRIES, *_CUDA, _SHRINKAGE, "execution_mode"])
    options = ort.SessionOptions()
    level = int(config.optimization.get("graph", {}).get("level", 0))
    options.graph_optimization_level = _known("optimization { graph { level } }", _LEVELS, level)
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
    return options


def _known(name: str, choices: Mapping[Any, Any], chosen: Any) -> Any:
    if chosen not in choices:
        raise ModelError(f"{name} is {chosen!r}, not one of {', '.join(map(str, choices))}")
    return choices[chosen]


def _file_tensors(nodes: Sequence[Any]) -> fit.FileTensors:
    """Read the graph's inputs or outputs; a dimension with a name, or with none, may vary."""
    return {
        # onnxruntime has no dims for a scalar nor where it knows none.
        node.name: (_DTYPES.get(node.type, node.type), [d if isinstance(d, int) else -1 for d in node.shape] or None)
        for node in nodes
    }


def _decoded(name: str, texts: NDArray[np.object_]) -> NDArray[np.object_]:
    """Decode bytes to str: onnxruntime takes b"text" for the string "b'text'", without an error."""
    decoded = np.empty(texts.shape, np.object_)
    try:
        decoded.ravel()[:] = [text.decode() for text in texts.ravel()]
    except UnicodeDecodeError as error:
        raise RequestError(f"input {name!r} is not UTF-8: {error}") from None
    return decoded


def _told(error: Exception) -> str:
    """Return what onnxruntime says, without its own error codes and the places in its own source code."""
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", message)
