"""What the Python examples of triton-inference-server/client show, with this library, on models of the same kind.

Left out are CUDA shared memory and streaming (decoupled models), which the library does not have.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients import AsyncClient, Client, InferenceError, InvalidInputError, ModelNotFoundError, Transport
from clients.shared_memory import SharedMemory
from tests.conftest import Workspace, free_ports, port_options, wait_for

PYTHON = 'backend: "python"\n'
INPUTS = 'name: "INPUT0" data_type: {0} dims: [ 16 ] }} , {{ name: "INPUT1" data_type: {0} dims: [ 16 ]'
OUTPUTS = 'name: "OUTPUT0" data_type: {0} dims: [ 16 ] }} , {{ name: "OUTPUT1" data_type: {0} dims: [ 16 ]'
SIMPLE = PYTHON + f"max_batch_size: 8\ninput [ {{{{ {INPUTS} }}}} ]\noutput [ {{{{ {OUTPUTS} }}}} ]"
IDENTITY = PYTHON + (
    'max_batch_size: 8\ninput [ { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]\n'
    'output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]'
)
SEQUENCE = PYTHON + (
    'max_batch_size: 0\ninput [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    'output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    "instance_group [ { kind: KIND_CPU count: 2 } ]\n"  # a sequence holds an instance until it ends
    "sequence_batching { max_sequence_idle_microseconds: 60000000 control_input [\n"
    '  { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },\n'
    '  { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] } ] }\n'
)
PARAMETERS = PYTHON + (
    'max_batch_size: 0\ninput [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    'output [ { name: "OUTPUT" data_type: TYPE_STRING dims: [ 1 ] } ]'
)
HEAD = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

def read(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()

def answer(**outputs):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
"""
ADD_SUB = """
        a, b = read(request, "INPUT0"), read(request, "INPUT1")
        if a.dtype == np.object_:
            a, b = a.astype(np.int32), b.astype(np.int32)
            text = np.vectorize(lambda number: str(number).encode(), otypes="O")
            return answer(OUTPUT0=text(a + b), OUTPUT1=text(a - b))
        return answer(OUTPUT0=a + b, OUTPUT1=a - b)
"""
MODELS = {
    "simple": (SIMPLE.format("TYPE_INT32"), ADD_SUB),
    "simple_string": (SIMPLE.format("TYPE_STRING"), ADD_SUB),
    "simple_identity": (IDENTITY, '        return answer(OUTPUT0=read(request, "INPUT0"))\n'),
    "simple_sequence": (
        SEQUENCE,
        """
        key, start = int(read(request, "CORRID")[0]), bool(read(request, "START")[0])
        self.sums[key] = (0 if start else self.sums[key]) + read(request, "INPUT")
        return answer(OUTPUT=self.sums[key].astype(np.int32))
""",
    ),
    "parameters": (
        PARAMETERS,
        "        return answer(OUTPUT=np.array([request.parameters().encode()], np.object_))\n",
    ),
}
A, B = np.arange(16, dtype=np.int32)[None], np.ones((1, 16), np.int32)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, list[int]]]:
    """A server with those models, and its ports."""
    workspace, ports = Workspace(tmp_path_factory.mktemp("official")), free_ports()
    for name, (config, code) in MODELS.items():
        version = workspace.repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(HEAD + code)
        (version.parent / "config.pbtxt").write_text(config)
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *port_options(ports))
    yield workspace, list(ports)
    workspace.must("deploy", "down")


@pytest.fixture(params=["grpc", "http"])
def address(workspace: tuple[Workspace, list[int]], request: pytest.FixtureRequest) -> str:
    """The URL, over either protocol."""
    return f"{request.param}://127.0.0.1:{workspace[1][request.param == 'grpc']}"


@pytest.fixture
def admin(workspace: tuple[Workspace, list[int]], address: str) -> Iterator[Client]:
    """A client that may do everything."""
    key = Path(workspace[0].root, "artifacts", "server", "admin.key").read_text().strip()
    with Client(address, transport=Transport(admin_key=key)) as client:
        yield client


def test_simple_infer_client(address: str) -> None:
    with Client(address) as client:
        outputs = client.infer("simple", {"INPUT0": A, "INPUT1": B}, request_id="1", timeout_s=5)
    assert np.array_equal(outputs["OUTPUT0"], A + B)
    assert np.array_equal(outputs["OUTPUT1"], A - B)


def test_simple_async_infer_client(address: str) -> None:
    async def run() -> list[dict[str, np.ndarray]]:
        async with AsyncClient(address) as client:
            return await asyncio.gather(*(client.infer("simple", {"INPUT0": A + i, "INPUT1": B}) for i in range(8)))

    for i, outputs in enumerate(asyncio.run(run())):
        assert np.array_equal(outputs["OUTPUT0"], A + i + B)


def test_simple_string_infer_client(address: str) -> None:
    a, b = ([[str(number) for number in row] for row in array] for array in (A, B))
    with Client(address) as client:
        outputs = client.infer("simple_string", {"INPUT0": a, "INPUT1": b}, outputs=["OUTPUT0"])
    assert outputs["OUTPUT0"].tolist() == [[str(number).encode() for number in row] for row in A + B]


def test_binary_tensors_come_back_as_they_were(address: str) -> None:
    given = [[b"\x00\xff\x00", b"", "é".encode()]]
    with Client(address) as client:
        assert client.infer("simple_identity", {"INPUT0": given})["OUTPUT0"].tolist() == given


def test_simple_shm_client(admin: Client) -> None:
    with SharedMemory(admin, 4096, mode=0o666) as region:
        outputs = region.infer("simple", {"INPUT0": A, "INPUT1": B})
        strings = region.infer("simple_identity", {"INPUT0": [[b"a\0", "é"]]})
    assert np.array_equal(outputs["OUTPUT0"], A + B)
    assert strings["OUTPUT0"].tolist() == [[b"a\0", "é".encode()]]
    assert not admin.shared_memory_status()


def test_simple_health_metadata(address: str) -> None:
    with Client(address) as client:
        client.wait_until_ready("simple", timeout_s=10)
        assert client.live() and client.ready() and client.ready("simple") and not client.ready("nope")
        assert client.server_metadata()["name"] == "triton"
        assert client.model_metadata("simple")["versions"] == ["1"]
        assert client.model_config("simple")["max_batch_size"] == 8
        with pytest.raises(ModelNotFoundError):
            client.model_metadata("nope")


def test_statistics(address: str) -> None:
    with Client(address) as client:

        def count() -> int:
            return int(client.statistics("simple")[0]["inference_count"])

        before, _ = count(), client.infer("simple", {"INPUT0": A, "INPUT1": B})
        wait_for(lambda: count() > before)  # which Triton counts after it has responded
        assert count() == before + 1
        assert {model["name"] for model in client.statistics()} == MODELS.keys()


def test_simple_model_control(admin: Client) -> None:
    config = admin.model_config("simple")
    admin.unload_model("simple")
    assert not admin.ready("simple")
    wait_for(lambda: ("simple", "UNAVAILABLE") in {(m["name"], m.get("state")) for m in admin.repository_index()})
    for limit in (4, 8):
        admin.load_model("simple", config={**config, "max_batch_size": limit})  # in place of the one in the repository
        assert admin.model_config("simple")["max_batch_size"] == limit
    with pytest.raises(InferenceError, match="failed to load 'nope'"):
        admin.load_model("nope")


def test_simple_sequence_sync_infer_client(address: str) -> None:
    """Two sequences side by side, each with a sum of its own."""
    sums: dict[int, list[int]] = {1001: [], 1002: []}
    with Client(address) as client:
        for i, value in enumerate((11, 7, 5)):
            for key, sign in ((1001, 1), (1002, -1)):
                parameters = {"sequence_id": key, "sequence_start": i == 0, "sequence_end": i == 2}
                outputs = client.infer(
                    "simple_sequence", {"INPUT": np.array([sign * value], np.int32)}, parameters=parameters
                )
                sums[key].append(int(outputs["OUTPUT"][0]))
    assert sums == {1001: [11, 18, 23], 1002: [-11, -18, -23]}
    with Client(address, address) as client, pytest.raises(InvalidInputError, match="one server, and there are 2"):
        client.infer("simple_sequence", {"INPUT": np.ones(1, np.int32)}, parameters={"sequence_id": 1})


def test_custom_parameters_reach_the_model(address: str) -> None:
    given = {"text": "é", "whole": 7, "half": 0.5, "yes": True}
    with Client(address) as client:
        [seen] = client.infer("parameters", {"INPUT": np.ones(1, np.int32)}, parameters=given)["OUTPUT"]
    assert given.items() <= json.loads(seen).items()
