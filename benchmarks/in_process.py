"""A release's own steps and its graph, called one after another in one process: what answering takes without a server.

benchmarks/limit.py starts it, with the Python and the packages that the server's models have. It speaks JSON by the
line: first what to load, then what to run. The steps' files are the release's, as they are; what Triton gives them is
stood in for by arrays that nobody copies.
"""

import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contracts import golden
from contracts.golden import GoldenRequest

Arrays = Mapping[str, NDArray[Any]]  # by tensor
Call = Callable[[Arrays], Arrays]
_WARM_UP_S = 0.2


class StepError(Exception):
    """A step refused a request, or is of a kind that only a server runs."""


class Tensor:
    """Stands in for `pb_utils.Tensor`."""

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class Request:
    """Stands in for `pb_utils.InferenceRequest`."""

    def __init__(self, tensors: Mapping[str, Tensor], wanted: Sequence[str]) -> None:
        self.tensors, self._wanted = tensors, wanted

    def inputs(self) -> list[Tensor]:
        return [*self.tensors.values()]

    def requested_output_names(self) -> list[str]:
        return [*self._wanted]

    def request_id(self) -> str:
        return ""


class Response:
    """Stands in for `pb_utils.InferenceResponse`."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: object = None) -> None:
        self.tensors, self.error = output_tensors, error

    def output_tensors(self) -> Sequence[Tensor]:
        return self.tensors

    def has_error(self) -> bool:
        return self.error is not None


class TritonError(Exception):
    """Stands in for `pb_utils.TritonError`."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)


def main() -> int:
    """Load what the first line says, then run what each further line says."""
    described = json.loads(sys.stdin.readline())
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a step prints is no answer
    try:
        call = pipeline(described["steps"], described["outputs"], described["threads"])
        _say(answers, {"ready": True})
        known: dict[str, tuple[GoldenRequest, ...]] = {}
        for line in sys.stdin:
            asked = json.loads(line)
            folder = asked["requests"]
            if folder not in known:
                known[folder] = golden.read(Path(folder))
                _check(known[folder], [call(request.inputs) for request in known[folder]])
            _say(answers, run(call, known[folder], asked["seconds"]))
    except Exception as error:  # whatever it is, whoever asked shall know
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def pipeline(steps: Sequence[Mapping[str, Any]], outputs: Sequence[str], threads: int) -> Call:
    """Load the steps; return what takes a request's inputs through all of them.

    Args:
        steps: In their order; see `limit.py`.
        outputs: Of the last of them that are asked for.
        threads: Of ONNX Runtime, in one call.
    """
    sys.modules["triton_python_backend_utils"] = _python_backend()
    loaded = [_network(step, threads) if step["graph"] else _python_step(step) for step in steps]
    ways = [(call, [*step["inputs"].items()], [*step["outputs"].items()])
            for call, step in zip(loaded, steps, strict=True)]  # fmt: skip

    def through(inputs: Arrays) -> Arrays:
        tensors = dict(inputs)
        for call, taken, given in ways:
            # What a request leaves out is optional: Triton would refuse it otherwise.
            found = call({name: tensors[tensor] for name, tensor in taken if tensor in tensors})
            for name, tensor in given:
                tensors[tensor] = found[name]
        return {name: tensors[name] for name in outputs}

    return through


def run(call: Call, requests: Sequence[GoldenRequest], seconds: float) -> dict[str, Any]:
    """Answer the requests in turn for that long; the last answer to each is checked behind it."""
    answers: list[Arrays] = [{} for _ in requests]
    inputs = [request.inputs for request in requests]
    latency_s = list[float]()
    until = time.perf_counter() + _WARM_UP_S
    while time.perf_counter() < until:
        call(inputs[0])
    cpu_s, began = time.process_time(), time.perf_counter()
    now, until = began, began + seconds
    while now < until:
        which = len(latency_s) % len(inputs)
        answers[which] = call(inputs[which])
        ended = time.perf_counter()
        latency_s.append(ended - now)
        now = ended
    took_s, cpu_s = now - began, time.process_time() - cpu_s
    _check(requests[: len(latency_s)], answers)
    p50_s, p99_s = np.percentile(latency_s, (50, 99)).tolist()
    return {"calls": len(latency_s), "seconds": took_s, "p50_s": p50_s, "p99_s": p99_s, "cpu_s": cpu_s}


def _check(requests: Sequence[GoldenRequest], answers: Sequence[Arrays]) -> None:
    for request, answer in zip(requests, answers, strict=False):
        if told := request.fault(answer):
            raise StepError(told)


def _network(step: Mapping[str, Any], threads: int) -> Call:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(step["graph"], options, providers=["CPUExecutionProvider"])
    texts = {node.name for node in session.get_inputs() if node.type == "tensor(string)"}
    names = [*step["outputs"]]

    def call(inputs: Arrays) -> Arrays:
        feed = {name: _decoded(values) if name in texts else values for name, values in inputs.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return call


def _decoded(values: NDArray[Any]) -> NDArray[Any]:
    return np.array([text.decode() for text in values.ravel()], np.object_).reshape(values.shape)


def _python_step(step: Mapping[str, Any]) -> Call:
    model = _load(step["name"], Path(step["source"]))
    _initialize(model, step)
    wanted = [*step["outputs"]]

    def call(inputs: Arrays) -> Arrays:
        tensors = {name: Tensor(name, values) for name, values in inputs.items()}
        [response] = model.execute([Request(tensors, wanted)])
        if response.error is not None:
            raise StepError(f"{step['name']}: {response.error}")
        return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}

    return call


def _load(name: str, source: Path) -> Any:
    """Load a step's file; another step's modules may have the names of those that lie beside it."""
    sys.path.insert(0, str(source.parent))
    described = importlib.util.spec_from_file_location(f"step_{name}", source)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    for other, beside in [*sys.modules.items()]:
        if Path(getattr(beside, "__file__", None) or "/").parent == source.parent:
            del sys.modules[other]
    return module.TritonPythonModel()


def _initialize(model: Any, step: Mapping[str, Any]) -> None:
    nice = os.nice
    os.nice = lambda increment: nice(0)  # a step gives way to the others of its server: here is none
    try:
        if hasattr(model, "initialize"):
            model.initialize(
                {
                    "model_config": step["config"],
                    "model_repository": step["folder"],
                    "model_version": Path(step["source"]).parent.name,
                    "model_name": step["name"],
                    "model_instance_kind": "CPU",
                    "model_instance_device_id": "0",
                    "model_instance_name": f"{step['name']}_0",
                }
            )
    finally:
        os.nice = nice


def _python_backend() -> Any:
    """Make what Python models import of Triton, as far as it has to do with arrays."""
    made: Any = types.ModuleType("triton_python_backend_utils")
    silent = staticmethod(lambda *said: None)
    made.Logger = type("Logger", (), {f"log_{level}": silent for level in ("info", "warn", "error", "verbose")})
    made.TritonModelException = type("TritonModelException", (Exception,), {})
    made.Tensor, made.InferenceRequest, made.InferenceResponse = Tensor, Request, Response
    made.TritonError = TritonError
    made.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
    return made


def _say(answers: Any, line: Mapping[str, Any]) -> None:
    print(json.dumps(line), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
