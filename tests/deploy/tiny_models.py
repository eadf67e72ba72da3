"""A bare Triton over a repository of tiny ONNX graphs, for tests of the Python-based backends."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import psutil
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from deploy.triton import environment
from tests.conftest import free_ports, wait_for

Request = Mapping[str, tuple[str, NDArray[Any]]]  # input: Triton's type, and its values

TYPES = {  # Triton's name: ONNX's
    **{name: name.lower() for name in ("BOOL", "INT8", "INT16", "INT32", "INT64", "STRING")},
    **{name: name.lower() for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float",
    "FP64": "double",
}
ROWS = 8  # of a full batch: requests with so many rows together are run at once, others wait for company
BATCHED = f"""
max_batch_size: {ROWS}
dynamic_batching {{ preferred_batch_size: [ {ROWS} ] max_queue_delay_microseconds: 5000000 }}
"""
ON_THE_CPU = 'backend: "onnxruntime" instance_group [ { kind: KIND_CPU count: 1 } ]'


def add(repository: Path, name: str, graph: str, config: str, *, on: str = ON_THE_CPU) -> Path:
    """The version directory of a new model: a graph in ONNX's text form, and a config.pbtxt that fits it."""
    version = add_as_it_is(repository, name, graph, config)
    model = onnx.load(version / "model.onnx")
    batch, defaults = "max_batch_size: 0" not in config, {constant.name for constant in model.graph.initializer}
    tensors = [_configured("input", tensor, batch, tensor.name in defaults) for tensor in model.graph.input]
    tensors += [_configured("output", tensor, batch, False) for tensor in model.graph.output]
    (version.parent / "config.pbtxt").write_text("\n".join([on, *tensors, config]))
    return version


def add_as_it_is(repository: Path, name: str, graph: str, config: str) -> Path:
    """The same, with a config.pbtxt that is all that is given."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    onnx.save(
        onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {name} {graph}'), version / "model.onnx"
    )
    (version.parent / "config.pbtxt").write_text(config)
    return version


def _configured(kind: str, tensor: onnx.ValueInfoProto, batch: bool, optional: bool) -> str:
    onnx_name = onnx.TensorProto.DataType.Name(tensor.type.tensor_type.elem_type).lower()
    [dtype] = [name for name, known in TYPES.items() if known == onnx_name]
    dims = [dim.dim_value or -1 for dim in tensor.type.tensor_type.shape.dim][batch:]
    # Triton has no scalars, neither as a sample of a batch nor alone.
    shape = f"dims: {dims}" if dims else "dims: [ 1 ] reshape { shape: [ ] }" if batch else "dims: [ 1 ]"
    more = "optional: true" if optional else ""
    return f'{kind} [ {{ name: "{tensor.name}" data_type: TYPE_{dtype} {shape} {more} }} ]'


@dataclass(frozen=True)
class Server:
    client: triton.InferenceServerClient
    process: psutil.Process
    log: Path
    address: str  # HOST:PORT of gRPC

    def ask(self, model: str, *requests: Request, **sequence: Any) -> list[Any]:
        """The answers, or errors, to requests that are sent at once."""
        waiting = [self._send(model, request, sequence) for request in requests]
        return [future.exception(timeout=60) or future.result() for future in waiting]

    def executions(self, model: str) -> int:
        """How many batches its backend was handed."""
        [stats] = self.client.get_inference_statistics(model, as_json=True)["model_stats"]
        return int(stats.get("execution_count", 0))

    def config(self, model: str) -> dict[str, Any]:
        """What it says of its configuration."""
        found: dict[str, Any] = self.client.get_model_config(model, as_json=True)["config"]
        return found

    def serves(self, model: str) -> bool:
        """Whether it does; of a configuration that its core refuses it has neither a state nor a reason."""
        index = self.client.get_model_repository_index(as_json=True)["models"]
        return any(m["name"] == model and m.get("state") == "READY" for m in index)

    def why_not(self, model: str) -> str:
        """Triton's reason for not serving it."""
        index = self.client.get_model_repository_index(as_json=True)["models"]
        [reason] = [m.get("reason", "it does not say") for m in index if m["name"] == model]
        return str(reason).partition("\n\nAt:")[0]

    def stubs(self, model: str) -> list[psutil.Process]:
        """The processes of its instances."""
        return [p for p in self.process.children() if f"/{model}/1/" in " ".join(p.cmdline())]

    def _send(self, model: str, request: Request, sequence: Mapping[str, Any]) -> "Future[triton.InferResult]":
        answer: Future[triton.InferResult] = Future()

        def arrived(result: triton.InferResult | None, error: InferenceServerException | None) -> None:
            answer.set_exception(error) if error else answer.set_result(result)

        given = []
        for name, (dtype, values) in request.items():
            given.append(triton.InferInput(name, values.shape, "BYTES" if dtype == "STRING" else dtype))
            given[-1].set_data_from_numpy(values)
        self.client.async_infer(model, given, arrived, **sequence)
        return answer


@contextmanager
def serving(
    repository: Path, installed: environment.Triton, *options: str, completes: bool = False, http: str = "127.0.0.1"
) -> Iterator[Server]:
    """A Triton that serves what it can load, and says of the rest why not.

    Args:
        completes: It may add to configurations, as in NVIDIA's container.
        http: Where it listens for HTTP: an address, or unix:/path.
    """
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(), strict=True))
    command = [
        *(str(installed.executable), *installed.arguments, f"--model-repository={repository}"),
        *("--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false"),
        # One after another: Triton takes a stub that gets no processor for a second for a dead one.
        *options,
        *([] if completes else ["--disable-auto-complete-config"]),
        *("--exit-timeout-secs=5", "--model-load-thread-count=1"),
        *(
            option
            for name, port in ports.items()
            for option in (f"--{name}-address={http if name == 'http' else '127.0.0.1'}", f"--{name}-port={port}")
        ),
    ]
    log = repository.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **installed.environment}, stdout=output, stderr=output)
    try:
        address = f"127.0.0.1:{ports['grpc']}"
        with triton.InferenceServerClient(address) as client:
            wait_for(lambda: process.poll() is not None or _is_live(client), timeout_s=120)
            assert process.poll() is None, f"it ended with {process.returncode}: {log.read_text()[-2000:]}"
            yield Server(client, psutil.Process(process.pid), log, address)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_live(client: triton.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live())
    except InferenceServerException:
        return False


def values_of(dtype: str, rows: int, seed: int) -> NDArray[Any]:
    """Some of that type, [rows, 2]; of integers the extremes among them."""
    random = np.random.default_rng(seed)
    if dtype == "STRING":
        texts = ["", "plain", "Größe", "a\0b", "日本", "b'bytes'"]
        return np.array([text.encode() for text in random.choice(texts, rows * 2)], np.object_).reshape(rows, 2)
    if dtype == "BOOL":
        return random.random((rows, 2)) < 0.5
    if "INT" in dtype:
        limits = np.iinfo(dtype.lower())
        return random.choice(np.array([limits.min, 0, 1, limits.max], limits.dtype), (rows, 2))
    return random.normal(size=(rows, 2)).astype(ml_dtypes.bfloat16 if dtype == "BF16" else f"float{dtype[2:]}")
