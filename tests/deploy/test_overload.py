"""More than a model can do: the excess is refused with the documented error, all else is answered, in the right order.

Everything is tried over both protocols, on the model itself and through an ensemble whose second step it is.
"""

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contracts import layout
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.conftest import write_model

# Doubles its input once it may, and keeps a record: of how many requests come together, and in which order.
GATE = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.folder = Path(args["model_repository"])

    def execute(self, requests):
        self.note("batches", len(requests))
        while not (self.folder / "open").exists():
            time.sleep(0.01)
        return [self.respond(request) for request in requests]

    def respond(self, request):
        number = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        self.note("turns", int(number.item()))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", number * 2)])

    def note(self, file, number):
        with (self.folder / file).open("a") as notes:
            notes.write(f"{number} ")
"""
QUEUE = """
dynamic_batching {
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { max_queue_size: 2 default_timeout_microseconds: 60000000 allow_timeout_override: true }
}
"""
ENSEMBLE = """
name: "chain"
platform: "ensemble"
max_batch_size: 1
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "first"
      model_version: -1
      input_map { key: "IN" value: "IN" }
      output_map { key: "OUT" value: "doubled" }
    },
    {
      model_name: "gate"
      model_version: -1
      input_map { key: "IN" value: "doubled" }
      output_map { key: "OUT" value: "OUT" }
    }
  ]
}
"""
DOUBLE = GATE.replace('(self.folder / "open").exists()', "True")
FACTOR = {"gate": 2, "chain": 4}
over_both = pytest.mark.parametrize("protocol", ["grpc", "http"])
of_both = pytest.mark.parametrize("model", ["gate", "chain"])
UNAVAILABLE = {"grpc": "StatusCode.UNAVAILABLE", "http": "503"}
WARM_UP = (
    'model_warmup [ {{ name: "{0}" batch_size: {0} inputs {{ key: "IN" '
    "value {{ data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }} }} }} ]\n"
)


@dataclass(frozen=True)
class Small:
    """A server of `gate`, which takes one request at a time and lets two of each priority wait, and of `chain`."""

    workspace: Workspace
    ports: list[int]

    @property
    def gate(self) -> Path:
        return self.workspace.served / "gate"

    def infer(self, protocol: str, model: str, number: int, priority: int = 0, timeout_us: int | None = None) -> float:
        triton = {"grpc": tritonclient.grpc, "http": tritonclient.http}[protocol]
        tensor = triton.InferInput("IN", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), number, np.float32))
        with triton.InferenceServerClient(f"127.0.0.1:{self.ports[protocol == 'grpc']}") as client:
            return float(client.infer(model, [tensor], priority=priority, timeout=timeout_us).as_numpy("OUT").item())

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Status and body; 0 if nobody listens."""
        with suppress(ConnectionError):
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        return 0, ""

    def waiting(self) -> int:
        """Requests in the gate's queue."""
        _, metrics = self.get(self.ports[2], "/metrics")
        found = re.search(r'nv_inference_pending_request_count\{model="gate",version="1"\} (\d+)', metrics)
        return int(found[1]) if found else 0

    def noted(self, file: str) -> list[int]:
        path = self.gate / file
        return [int(number) for number in path.read_text().split()] if path.exists() else []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    small = Small(Workspace(tmp_path_factory.mktemp("overload")), free_ports())
    repository = small.workspace.repository
    write_model(repository, "gate", GATE, max_batch_size=1, more=QUEUE)
    write_model(repository, "first", DOUBLE, max_batch_size=1)
    (repository / "chain" / "1").mkdir(parents=True)
    (repository / "chain" / "config.pbtxt").write_text(ENSEMBLE)
    small.workspace.must("deploy", "up", "--detach", "--repository", repository, *port_options(small.ports))
    yield small
    small.workspace.down()


@pytest.fixture
def busy(small: Small) -> Iterator[ThreadPoolExecutor]:
    """Clients of a gate that is closed, until the test opens it."""
    for file in ("open", "turns", "batches"):
        (small.gate / file).unlink(missing_ok=True)
    with ThreadPoolExecutor(8) as clients:
        yield clients
        (small.gate / "open").touch()


def fill(small: Small, busy: ThreadPoolExecutor, protocol: str, model: str, *priorities: int) -> list["Future[float]"]:
    """Requests 0, 1, …: the first is being worked on, the others wait, in this order."""
    asked = []
    for number, priority in enumerate((0, *priorities)):
        asked.append(busy.submit(small.infer, protocol, model, number, priority))
        wait_for(lambda waiting=number: small.noted("batches") and small.waiting() == waiting)
    return asked


@over_both
@of_both
def test_what_no_queue_holds_is_refused_at_once_and_all_before_it_is_answered(
    small: Small, busy: ThreadPoolExecutor, protocol: str, model: str
) -> None:
    accepted = fill(small, busy, protocol, model, 0, 0)
    for number in (3, 4):
        with pytest.raises(InferenceServerException, match=r"Exceeds maximum queue size$") as refused:
            small.infer(protocol, model, number)
        assert refused.value.status() == UNAVAILABLE[protocol]
        assert refused.value.message().startswith("in ensemble 'chain', ") == (model == "chain")
    (small.gate / "open").touch()
    assert [each.result() for each in accepted] == [FACTOR[model] * number for number in range(3)]
    assert [small.infer(protocol, model, number) for number in range(5)] == [FACTOR[model] * n for n in range(5)]


@over_both
@of_both
def test_who_would_wait_for_too_long_is_refused_and_costs_the_others_nothing(
    small: Small, busy: ThreadPoolExecutor, protocol: str, model: str
) -> None:
    accepted = fill(small, busy, protocol, model, 0)
    with pytest.raises(InferenceServerException, match=r"Request timeout expired$") as refused:
        small.infer(protocol, model, 2, timeout_us=1000)
    assert refused.value.status() == UNAVAILABLE[protocol]
    (small.gate / "open").touch()
    assert [each.result() for each in accepted] == [0, FACTOR[model]]
    assert len(small.noted("turns")) == 2


@over_both
@of_both
def test_priority_1_overtakes_2_which_is_what_says_nothing_and_has_a_queue_of_its_own(
    small: Small, busy: ThreadPoolExecutor, protocol: str, model: str
) -> None:
    accepted = fill(small, busy, protocol, model, 2, 0, 1, 1)
    (small.gate / "open").touch()
    assert [each.result() for each in accepted] == [FACTOR[model] * number for number in range(5)]
    assert small.noted("turns") == [FACTOR[model] // 2 * number for number in (0, 3, 4, 1, 2)]


@pytest.mark.heavy
def test_a_server_is_not_ready_until_every_batch_size_is_warmed_up(tmp_path: Path) -> None:
    small = Small(Workspace(tmp_path), free_ports())
    write_model(
        small.workspace.repository, "gate", GATE, max_batch_size=8, more="".join(map(WARM_UP.format, (1, 4, 8)))
    )
    up = small.workspace.command("deploy", "up", "--detach", "--repository", small.workspace.repository)
    with subprocess.Popen(
        [*up, *port_options(small.ports)], cwd=layout.ROOT, env=small.workspace.environment, stdout=subprocess.DEVNULL
    ) as starting:
        try:
            wait_for((tmp_path / "artifacts" / "server" / "server.json").exists)
            wait_for(lambda: small.noted("batches"))
            assert starting.poll() is None
            assert small.get(small.ports[0], "/v2/health/ready")[0] != 200
            (small.gate / "open").touch()
            assert starting.wait(timeout=60) == 0
            assert small.get(small.ports[0], "/v2/health/ready")[0] == 200
            assert small.noted("batches") == [1, 4, 8]
        finally:
            small.workspace.down()


def test_neither_is_one_that_loads_a_model_meanwhile(small: Small) -> None:
    (small.gate / "open").touch()
    late = small.workspace.served / "late"
    write_model(small.workspace.repository, "late", GATE, max_batch_size=1, more=WARM_UP.format(1))
    with subprocess.Popen(
        small.workspace.command("deploy", "reload", "late"), cwd=layout.ROOT, env=small.workspace.environment
    ) as loading:
        wait_for((late / "batches").exists)
        ready = {path: small.get(small.ports[0], path)[0] for path in ("/v2/health/ready", "/v2/models/late/ready")}
        assert ready == {"/v2/health/ready": 400, "/v2/models/late/ready": 400}
        assert small.infer("http", "chain", 3) == 12
        (late / "open").touch()
        assert loading.wait(timeout=60) == 0
    assert small.get(small.ports[0], "/v2/models/late/ready")[0] == 200
