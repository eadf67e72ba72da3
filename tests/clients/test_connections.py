"""What a client holds in a process: closed under calls, forked under calls, in front of a server that is gone."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from clients import AsyncClient, Client, ClientError, DeadlineExceededError, ServerUnavailableError, Tls, Transport
from contracts import layout
from tests.clients.tcp_proxy import tcp_proxy
from tests.conftest import RunningServer, free_ports, wait_for
from tests.workspace import FAMILY, MODEL


def test_the_first_calls_after_a_fork_share_what_they_make(url: str) -> None:
    program = f"""
import os, sys, threading
from clients import Client

with Client("{url}", "{url}") as client:
    assert client.ready("{FAMILY}")
    sys.setswitchinterval(1e-5)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            seen, together = [], threading.Barrier(12)
            def call():
                together.wait()
                seen.append(client.ready("{FAMILY}"))
            threads = [threading.Thread(target=call) for _ in range(12)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            os._exit(seen != [True] * 12)
        assert os.waitpid(child, 0)[1] == 0
    assert client.ready("{FAMILY}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=layout.ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_client_that_is_closed_in_the_midst_of_calls_ends_them_with_its_own_errors(
    url: str, images: list[bytes]
) -> None:
    client, ended = Client(url), list[BaseException]()

    def call(kind: int) -> None:
        try:
            while True:
                if kind:
                    list(client.classify_many(images))
                else:
                    client.classify(images[0])
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=call, args=(i % 2,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    client.close()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 8
    assert all(isinstance(error, ClientError) for error in ended), ended


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_closing_does_not_wait_for_a_server_that_says_nothing(
    server: RunningServer, images: list[bytes], protocol: str
) -> None:
    with tcp_proxy(getattr(server, protocol)) as between:
        client = Client(f"{protocol}://{between.address}", timeout_s=30)
        client.classify(images[0])
        between.stall()
        ended: list[str | ClientError] = []
        threads = [threading.Thread(target=lambda: ended.append(_outcome(client, images[0]))) for _ in range(4)]
        threads += [threading.Thread(target=lambda: list(client.classify_many(images)))]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        client.close()
        for thread in threads:
            thread.join(5)
        assert time.monotonic() - began < 5
        assert [type(error) for error in ended] == [ClientError] * 4


def test_and_so_does_the_one_for_asyncio(url: str, images: list[bytes]) -> None:
    async def run() -> list[BaseException | None]:
        client = AsyncClient(url)

        async def call() -> None:
            while True:
                await client.classify(images[0])

        calls = asyncio.gather(*(call() for _ in range(8)), return_exceptions=True)
        await asyncio.sleep(0.5)
        await client.close()
        async with asyncio.timeout(10):
            return await calls

    ended = asyncio.run(run())
    assert all(isinstance(error, ClientError) for error in ended), ended


def test_a_client_that_is_dropped_and_not_closed_does_not_go_on_probing() -> None:
    def probers() -> int:
        return sum(thread.name == "clients-probe" for thread in threading.enumerate())

    before = probers()
    client = Client(f"http://127.0.0.1:{free_ports(1)[0]}", timeout_s=1)
    with pytest.raises(ServerUnavailableError):
        client.server_metadata()
    assert probers() == before + 1
    del client
    gc.collect()
    wait_for(lambda: probers() == before, 5)


def test_a_client_for_asyncio_that_is_dropped_does_not_go_on_either() -> None:
    def probers() -> int:
        return sum("_probe" in repr(task) for task in asyncio.all_tasks())

    async def run() -> None:
        client = AsyncClient(f"http://127.0.0.1:{free_ports(1)[0]}", timeout_s=1)
        with pytest.raises(ServerUnavailableError):
            await client.server_metadata()
        assert probers() == 1
        del client
        # In this turn of the loop asyncio itself still has the socket's error, and with it all frames that waited for
        # it. On 3.11 they do not reach up to the client; from 3.12 on they do.
        await asyncio.sleep(0)
        gc.collect()
        async with asyncio.timeout(1.5):
            while probers():
                await asyncio.sleep(0.02)

    asyncio.run(run())


def test_a_batch_in_chunks_fails_of_what_one_request_fails_of(server: RunningServer, pixels: np.ndarray) -> None:
    async def by_coroutine(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.infer(MODEL, {"pixels": pixels})
            between.close()
            await client.infer(MODEL, {"pixels": pixels}, timeout_s=0.5)

    with tcp_proxy(server.grpc) as between, Client(f"grpc://{between.address}") as client:
        client.infer(MODEL, {"pixels": pixels})
        between.close()
        with pytest.raises(ServerUnavailableError):
            client.infer(MODEL, {"pixels": pixels}, timeout_s=0.5)
    with tcp_proxy(server.grpc) as between, pytest.raises(ServerUnavailableError):
        asyncio.run(by_coroutine(f"grpc://{between.address}"))


def test_images_that_are_being_classified_are_left_to_the_parent_of_a_fork(url: str, examples: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from clients import Client, ClientError
images = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.png"))]
with Client("{url}") as client:
    outcomes = client.classify_many(images, batch_size=1)
    next(outcomes)
    child = os.fork()
    if child == 0:
        try:
            list(outcomes)
        except ClientError as error:
            os._exit("before a fork" not in str(error))
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(outcomes)) == len(images) - 1
"""
    done = subprocess.run(
        [sys.executable, "-c", program, examples],
        cwd=layout.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_client_belongs_to_one_event_loop() -> None:
    client = AsyncClient("http://127.0.0.1:1")
    assert not asyncio.run(client.live())
    with pytest.raises(ClientError, match="belongs to another event loop"):
        asyncio.run(client.live())


def test_waiting_for_a_server_that_does_not_come_ends() -> None:
    url = f"grpc://127.0.0.1:{free_ports(1)[0]}"

    async def wait() -> None:
        async with AsyncClient(url) as client:
            await client.wait_until_ready(FAMILY, timeout_s=0.5)

    with Client(url) as client, pytest.raises(DeadlineExceededError, match="is not ready after"):
        client.wait_until_ready(FAMILY, timeout_s=0.5)
    with pytest.raises(DeadlineExceededError):
        asyncio.run(wait())


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_asking_for_a_server_that_is_gone_leaves_nothing_open(protocol: str) -> None:
    with Client(f"{protocol}://127.0.0.1:{free_ports(1)[0]}") as client:
        assert not client.live()
        before = psutil.Process().num_fds()
        assert not any(client.live() for _ in range(30))
        assert psutil.Process().num_fds() <= before + 4


def test_a_connection_that_stalls_is_replaced_and_not_piled_up(server: RunningServer, images: list[bytes]) -> None:
    with tcp_proxy(server.grpc) as between, Client(f"grpc://{between.address}", timeout_s=1) as client:
        client.classify(images[0])
        between.stall()
        with pytest.raises(ClientError):
            client.classify(images[0])
        time.sleep(6)  # of probes
        between.flow()
        wait_for(lambda: isinstance(_outcome(client, images[0]), str), 20)
        assert between.connections < 12


def test_probing_needs_no_file_that_was_read_before(tmp_path: Path) -> None:
    """As of a process that reads its keys as root, and goes on as somebody else."""
    from tests.deploy.certificates import Authority

    authority = Authority(tmp_path, "nobody")
    transport = Transport(tls=Tls(authority.certificate))
    with Client(f"grpcs://localhost:{free_ports(1)[0]}", timeout_s=0.5, transport=transport) as client:
        authority.certificate.unlink()
        for _ in range(3):
            with pytest.raises(ServerUnavailableError):
                client.server_metadata()
        assert not client.live()


def test_a_server_that_is_slow_to_say_it_lives_keeps_its_connection(server: RunningServer) -> None:
    """Only who looks after servers that failed a request replaces it."""
    with tcp_proxy(server.grpc) as between, Client(f"grpc://{between.address}") as client:
        assert client.live()
        between.delay_s = 1.3
        assert not client.live()
        assert not client.live()
        between.delay_s = 0
        wait_for(client.live)
        assert between.connections == 1


def _outcome(client: Client, image: bytes) -> str | ClientError:
    try:
        return client.classify(image).label
    except ClientError as error:
        return error
