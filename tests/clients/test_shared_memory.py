"""Inputs that a real Triton reads from memory."""

import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients import Client, DeadlineExceededError, InvalidInputError, ServerUnavailableError, Transport
from clients.core.request import SharedTensor
from clients.shared_memory import SharedMemory
from contracts import layout
from tests.clients.conftest import CLASSIFIER
from tests.clients.tcp_proxy import tcp_proxy
from tests.conftest import RunningServer, wait_for
from tests.workspace import FAMILY


@pytest.fixture
def admin(url: str, admin_key: str) -> Iterator[Client]:
    with Client(url, transport=Transport(admin_key=admin_key)) as client:
        yield client


def regions(client: Client) -> set[str]:
    return {region["name"] for region in client.shared_memory_status()}


def test_shared_memory_gives_the_same_answers_and_leaves_nothing(
    admin: Client, pixels: np.ndarray, images: list[bytes], right: list[float]
) -> None:
    with SharedMemory(admin, 1 << 20, mode=0o666) as region:
        for rows in (1, 64):
            shared = region.infer(CLASSIFIER, {"pixels": pixels[:rows]})["probabilities"]
            assert np.allclose(shared, admin.infer(CLASSIFIER, {"pixels": pixels[:rows]})["probabilities"], atol=1e-4)
        answer = region.infer(FAMILY, {"image": [[image] for image in images]})
        assert answer["score"][:, 0] == pytest.approx(right, abs=1e-4)
        fixed = region.infer(FAMILY, {"image": np.array([[image] for image in images])})  # of numpy's type S
        assert fixed["score"][:, 0] == pytest.approx(right, abs=1e-4)
        with pytest.raises(InvalidInputError, match="of 1,048,576 bytes of memory"):
            region.infer(FAMILY, {"image": [[bytes(2 << 20)]]})
        with pytest.raises(InvalidInputError, match="takes at most 64 rows"):
            region.infer(CLASSIFIER, {"pixels": pixels})
        assert len(regions(admin)) == 1
    assert not regions(admin)
    assert not list(Path("/dev/shm").glob(f"clients-{os.getpid()}-*"))


def test_whoever_sees_the_file_of_a_region_cannot_have_the_server_read_it(
    admin: Client, url: str, pixels: np.ndarray
) -> None:
    """Another process without the key, which sees what everybody on this machine sees."""
    attack = f"""
import sys
from pathlib import Path
import numpy as np
from clients import Client, ClientError
from clients.core.request import SharedTensor
names = [path.name for path in Path("/dev/shm").glob("clients-{os.getpid()}-*")]
assert names
with Client("{url}") as client:
    for name in names:
        try:
            client.infer("{CLASSIFIER}", {{"pixels": np.zeros((1, 1, 28, 28), np.uint8)}},
                         shared={{"pixels": SharedTensor(name, 0, 784)}})
            print("read", name)
        except ClientError as error:
            print(error)
    try:
        print("listed", client.shared_memory_status())
    except ClientError as error:
        print(error)
"""
    with SharedMemory(admin, 1 << 20, mode=0o666) as region:
        region.infer(CLASSIFIER, {"pixels": pixels[:1]})
        seen = subprocess.run(
            [sys.executable, "-c", attack], cwd=layout.ROOT, capture_output=True, text=True, check=True
        ).stdout
    assert "Unable to find shared memory region" in seen and "restricted" in seen
    assert "read" not in seen.split() and "listed" not in seen.split()


@pytest.mark.parametrize("offset, size", [(-8, 8), (0, -1), (2**63 - 4, 8), (2**64 - 8, 16), (0, 2**64), (0.0, 8)])
def test_a_place_that_wraps_around_is_no_place(offset: int, size: int) -> None:
    with pytest.raises(InvalidInputError, match="must lie from 0"):
        SharedTensor("region", offset, size)


def test_a_region_of_no_size_or_too_much_is_not_registered(nobody: str) -> None:
    with Client(nobody) as client:
        for size in (0, -1, 2**63):
            with pytest.raises(InvalidInputError, match="a region must have"):
                client.register_shared_memory("region", "/key", size)


def test_what_a_killed_process_shared_is_taken_back(admin: Client, url: str, admin_key: str) -> None:
    program = f"""
import sys, time
from clients import Client, Transport
from clients.core.request import SharedTensor
from clients.shared_memory import SharedMemory
with Client("{url}", transport=Transport(admin_key=sys.stdin.readline().strip())) as client:
    with SharedMemory(client, 1 << 20, mode=0o666):
        print("up", flush=True)
        time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=layout.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as killed:
        assert killed.stdin and killed.stdout
        killed.stdin.write(f"{admin_key}\n")
        killed.stdin.flush()
        assert killed.stdout.readline() == "up\n"
        [stale] = regions(admin)
        killed.send_signal(signal.SIGKILL)
    wait_for(lambda: not list(Path("/dev/shm").glob(f"clients-{killed.pid}-*")))
    with SharedMemory(admin, 1 << 10, mode=0o666):
        assert stale not in regions(admin)
    gc.collect()


def test_what_was_left_in_the_folder_goes_unless_somebody_still_has_it(admin: Client) -> None:
    left, young, used = (Path(f"/dev/shm/clients-test-{name}") for name in ("left", "young", "used"))
    try:
        for path in (left, young, used):
            path.write_bytes(b"x")
        for path in (left, used):
            os.utime(path, (0, 0))
        with used.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with SharedMemory(admin, 1 << 10, mode=0o666):
                assert [path.exists() for path in (left, young, used)] == [False, True, True]
    finally:
        for path in (left, young, used):
            path.unlink(missing_ok=True)


def test_a_server_that_has_forgotten_the_region_is_told_again(admin: Client, pixels: np.ndarray) -> None:
    """As one that was started anew."""
    with SharedMemory(admin, 1 << 20, mode=0o666) as region:
        region.infer(CLASSIFIER, {"pixels": pixels[:1]})
        [name] = regions(admin)
        admin.unregister_shared_memory(name)
        assert region.infer(CLASSIFIER, {"pixels": pixels[:1]})
        assert regions(admin) == {name}


def test_what_a_response_was_just_made_of_can_be_unmapped(admin: Client, pixels: np.ndarray) -> None:
    """Triton may still have it when the response is here."""
    with SharedMemory(admin, 1 << 20, mode=0o666) as region:
        for _ in range(200):
            region.infer(CLASSIFIER, {"pixels": pixels[:1]})
            [name] = regions(admin)
            admin.unregister_shared_memory(name)


def test_memory_that_is_not_there_is_an_error_and_leaves_nothing(nobody: str) -> None:
    folder = os.statvfs("/dev/shm")
    if not folder.f_blocks:
        pytest.skip("/dev/shm is without a limit here")
    with Client(nobody) as client, pytest.raises(InvalidInputError, match="/dev/shm has no room for"):
        SharedMemory(client, 2 * folder.f_blocks * folder.f_frsize).__enter__()
    assert not list(Path("/dev/shm").glob(f"clients-{os.getpid()}-*"))


@pytest.mark.parametrize("size", [0, -1, 1e6])
def test_a_size_is_a_number_of_bytes(nobody: str, size: int) -> None:
    with Client(nobody) as client:
        with pytest.raises(InvalidInputError, match="size_bytes must be"):
            SharedMemory(client, size)
        SharedMemory(client, np.int64(4096))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1 << 60, 1 << 70])
def test_more_than_there_are_addresses_is_an_error_too(nobody: str, size: int) -> None:
    with Client(nobody) as client, pytest.raises(InvalidInputError, match="/dev/shm has no room for"):
        SharedMemory(client, size).__enter__()
    assert not list(Path("/dev/shm").glob(f"clients-{os.getpid()}-*"))


def test_a_pipe_of_somebody_elses_is_not_waited_for(admin: Client) -> None:
    pipe = Path(f"/dev/shm/clients-{os.getpid()}-pipe")
    os.mkfifo(pipe)
    try:
        with SharedMemory(admin, 1 << 10, mode=0o666):
            pass
        assert pipe.exists()
    finally:
        pipe.unlink()


def test_a_region_whose_registration_was_not_confirmed_is_taken_back(server: RunningServer, admin_key: str) -> None:
    def lose_the_answer(chunk: bytes) -> bytes:
        return b"" if between.connections == 1 and registering.is_set() else chunk

    registering = threading.Event()
    with tcp_proxy(server.http) as between:
        between.see = lambda chunk: b"/register " in chunk and registering.set()
        between.change = lose_the_answer
        with Client(f"http://{between.address}", transport=Transport(admin_key=admin_key)) as client:
            assert client.live()
            with pytest.raises(ServerUnavailableError):
                SharedMemory(client, 1 << 10, mode=0o666).__enter__()
            assert registering.is_set()
            assert not regions(client)


def test_a_region_that_is_in_use_is_waited_for_until_the_deadline(admin: Client, pixels: np.ndarray) -> None:
    with SharedMemory(admin, 1 << 20, mode=0o666) as region, region._lock:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="another request used the region"):
            region.infer(CLASSIFIER, {"pixels": pixels[:1]}, timeout_s=0.3)
        assert time.monotonic() - began < 1.3


def test_a_forked_process_leaves_the_region_to_its_parent(admin: Client, pixels: np.ndarray) -> None:
    with SharedMemory(admin, 1 << 20, mode=0o666) as region:
        if (child := os.fork()) == 0:
            try:
                region.infer(CLASSIFIER, {"pixels": pixels[:1]})
            except InvalidInputError:
                region.__exit__(None, None, None)
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert region.infer(CLASSIFIER, {"pixels": pixels[:1]})
