"""The worker that runs one model of Triton's Python backend on one request. Started by ensemble.py as a program.

It imports nothing of ours: what is in sys.path is the model's own. Reads a pickled question from standard input, and
writes the outputs, pickled, to standard output.
"""

import os
import pickle
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Tensor:
    """What pb_utils.Tensor is to a model."""

    def __init__(self, name: str, values: Any) -> None:
        self._name, self._values = name, np.asarray(values)

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._values

    def shape(self) -> tuple[int, ...]:
        return tuple(self._values.shape)

    def is_cpu(self) -> bool:
        return True


class InferenceRequest:
    """What a request is to a model."""

    def __init__(self, inputs: Sequence[Tensor], wanted: Sequence[str]) -> None:
        self._inputs, self._wanted = list(inputs), list(wanted)

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def requested_output_names(self) -> list[str]:
        return self._wanted

    def request_id(self) -> str:
        return "golden"

    def correlation_id(self) -> int:
        return 0

    def parameters(self) -> str:
        return "{}"


class TritonError(Exception):
    """What pb_utils.TritonError is to a model: it is put into a response, not raised."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code

    def message(self) -> str:
        return str(self)


class InferenceResponse:
    """What pb_utils.InferenceResponse is to a model."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._outputs, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._outputs

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


def stand_in() -> types.ModuleType:
    """Make the module `triton_python_backend_utils`."""
    module: Any = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceRequest, module.InferenceResponse = Tensor, InferenceRequest, InferenceResponse
    module.TritonError = TritonError
    module.TritonModelException = type("TritonModelException", (Exception,), {})
    silent = staticmethod(lambda *_: None)
    names = ("log", "log_info", "log_warn", "log_error", "log_verbose")
    module.Logger = type("Logger", (), dict.fromkeys(names, silent))
    module.get_input_tensor_by_name = lambda request, name: _named(request.inputs(), name)
    module.get_output_tensor_by_name = lambda response, name: _named(response.output_tensors(), name)
    module.get_input_config_by_name = lambda config, name: _described(config["input"], name)
    module.get_output_config_by_name = lambda config, name: _described(config["output"], name)
    module.triton_string_to_numpy = _numpy_type
    return module  # type: ignore[no-any-return]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Load the model, let it answer, and return its outputs.

    Raises:
        TritonError: it refused the request.
    """
    directory = Path(asked["directory"])
    version = directory / str(asked["version"])
    sys.modules["triton_python_backend_utils"] = stand_in()
    sys.path[0] = str(version)
    import model  # type: ignore[import-not-found]  # the model's own

    step = model.TritonPythonModel()
    if hasattr(step, "initialize"):
        step.initialize(
            {
                "model_config": asked["config"],
                "model_name": directory.name,
                "model_version": str(asked["version"]),
                "model_repository": str(directory),
                "model_instance_kind": "CPU",
                "model_instance_device_id": "0",
                "model_instance_name": f"{directory.name}_0",
            }
        )
    request = InferenceRequest([Tensor(name, values) for name, values in asked["inputs"].items()], asked["wanted"])
    [response] = step.execute([request])
    if response.has_error():
        raise response.error()
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def _named(tensors: Sequence[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


def _described(tensors: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((tensor for tensor in tensors if tensor["name"] == name), None)


def _numpy_type(name: str) -> Any:
    known = {"TYPE_STRING": np.object_, "TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}
    return known.get(name) or np.dtype(name.removeprefix("TYPE_").lower()).type


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the model prints is no answer
    question = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started this one
    pickle.dump(answer(question), out)
    out.close()
