"""What the Python examples of triton-inference-server/client show, with this library, on models of the same kind.

Left out are CUDA shared memory and streaming (decoupled models), which the library does not have.
"""

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest

from clients import AsyncClient, Client, InferenceError, InvalidInputError, ModelNotFoundError, Transport
from clients.shared_memory import SharedMemory
from tests.clients.small_models import MODELS, Small
from tests.conftest import wait_for

A, B = np.arange(16, dtype=np.int32)[None], np.ones((1, 16), np.int32)


@pytest.fixture(params=["grpc", "http"])
def address(small: Small, request: pytest.FixtureRequest) -> str:
    """The URL, over either protocol."""
    return small.urls[request.param]


@pytest.fixture
def admin(small: Small, address: str) -> Iterator[Client]:
    """A client that may do everything."""
    with Client(address, transport=Transport(admin_key=small.admin_key)) as client:
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
