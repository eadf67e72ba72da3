"""A model's graph, loaded as the native backend loads it, and what it says of its inputs and outputs."""

import re
from collections.abc import Sequence
from typing import Any

import onnxruntime as ort
from python_based import fit
from python_based.config import ModelConfig
from python_based.errors import ModelError

from ort_session import settings

_DTYPES = {
    **{f"tensor({name})": name.upper() for name in ("bool", "int8", "int16", "int32", "int64", "string")},
    **{f"tensor({name})": name.upper() for name in ("uint8", "uint16", "uint32", "uint64")},
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}


def load(config: ModelConfig) -> ort.InferenceSession:
    """Load a model's graph.

    Raises:
        ModelError: there is none, onnxruntime cannot load it, or the device is not to be had.
    """
    file = config.default_file or "model.onnx"
    path = config.directory / file
    if path.is_dir():  # a graph and its weights, as the native backend takes them
        path /= "model.onnx"
    if not path.is_file():
        raise ModelError(f"version {config.directory.name} has no {file}")
    options, providers = settings.session_options(config), settings.providers(config)
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise ModelError(f"onnxruntime cannot load {file}: {told(error).replace(str(path), file)}") from error
    if config.kind == "GPU" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ModelError("onnxruntime could not start CUDA: a library or the driver is missing, see the server's log")
    return session


def require_fit(session: ort.InferenceSession, config: ModelConfig) -> None:
    """Compare a graph with its configuration.

    Raises:
        ModelError: they do not fit.
    """
    optional = {node.name for node in session.get_overridable_initializers()}
    found = tensors(inputs(session, config)), tensors(session.get_outputs())
    fit.require(config, config.default_file or "model.onnx", *found, optional, exact=True)


def inputs(session: ort.InferenceSession, config: ModelConfig) -> list[Any]:
    """List the inputs that the graph needs, and those of its optional ones that are configured."""
    given = {tensor.name for tensor in config.inputs}
    return [*session.get_inputs(), *(node for node in session.get_overridable_initializers() if node.name in given)]


def tensors(nodes: Sequence[Any]) -> fit.FileTensors:
    """Read the graph's inputs or outputs; a dimension with a name, or with none, may vary."""
    return {
        # onnxruntime has no dims for a scalar nor where it knows none.
        node.name: (_DTYPES.get(node.type, node.type), [d if isinstance(d, int) else -1 for d in node.shape] or None)
        for node in nodes
    }


def told(error: Exception) -> str:
    """Return what onnxruntime says, without its own error codes and the places in its own source code."""
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", message)
