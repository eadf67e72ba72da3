"""Workers, the writer and what keeps them are killed under load: nobody is left, and every answer has its record."""

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_for
from tests.gateway import whole
from tests.gateway.tritons import Running
from tests.gateway.whole import Whole
from tests.redis_server import RedisServer
from tests.store.records import asked, written

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(300)]

WORKERS, CALLERS = 3, 6
IMAGE = b"\4\0\0\0boot"
HEADER = json.dumps(
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 8}}]}
).encode()


class Load:
    """Callers that ask again and again, on a connection each, and begin anew where it breaks."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key
        self.answered: list[str] = []  # ids of whole answers
        self.others: Counter[int] = Counter()
        self.broken = 0
        self._stop = threading.Event()
        self._callers = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def __enter__(self) -> "Load":
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()

    def goes_on(self, count: int = 50) -> None:
        """Wait for so many more answers."""
        until = len(self.answered) + count
        wait_for(lambda: len(self.answered) >= until, 60)

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}", "Inference-Header-Content-Length": str(len(HEADER))}
        while not self._stop.is_set():
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
            with suppress(OSError, HTTPException):
                while not self._stop.is_set():
                    connection.request("POST", "/v2/models/labels/infer", HEADER + IMAGE, headers)
                    response = connection.getresponse()
                    response.read()
                    if response.status == 200:
                        self.answered.append(response.headers["x-request-id"])
                    else:
                        self.others[response.status] += 1
            self.broken += 1
            connection.close()
            time.sleep(0.02)


def parts(running: Whole, word: str) -> list[psutil.Process]:
    """Its processes whose command line has a word."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(running.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if word in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
    return found


def workers(running: Whole) -> list[psutil.Process]:
    return parts(running, "gateway.running.workers")


@contextmanager
def several(folder: Path, triton: Running, redis: RedisServer, *options: str) -> Iterator[Whole]:
    more = {"listen__workers": str(WORKERS), "quota__storage": redis.url, "quota__wait_s": "20", "limits__drain_s": "1"}
    with whole.up(folder, triton.address, options=options, **more) as running:
        yield running


def all_again(running: Whole, killed: list[psutil.Process]) -> None:
    gone = {each.pid for each in killed}
    wait_for(lambda: len({each.pid for each in workers(running)} - gone) == WORKERS, 90)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def test_whoever_is_killed_nobody_is_left_and_every_answer_has_its_record(
    typed_triton: Running, redis_server: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "g"
    with several(folder, typed_triton, redis_server) as running:
        key = running.admin()
        with Load(running.port, key) as load:
            load.goes_on()
            for each in workers(running):  # one by one
                each.kill()
                load.goes_on()
                all_again(running, [each])
            for each in parts(running, "store write"):
                each.kill()
            load.goes_on()
            everyone = workers(running)
            for each in everyone:  # all at once
                each.kill()
            all_again(running, everyone)
            load.goes_on()
            left = psutil.Process(running.process.pid).children(recursive=True)
            running.process.kill()
            _, alive = psutil.wait_procs(left, 30)
            assert len(left) == WORKERS + 1 and not alive
            wait_for(lambda: is_free(running.port), 10)
            with several(folder, typed_triton, redis_server, "--port", str(running.port)) as again:
                assert again.port == running.port
                load.goes_on(200)
        assert not set(load.others) - {503}, load.others
    store = f"sqlite:///{folder}/artifacts/store/store.db"
    written(store, folder / "artifacts" / "store" / "spool")
    recorded = {row[0] for row in asked(store, "SELECT id FROM predictions WHERE status = 200")}
    assert len(load.answered) == len(set(load.answered)) and not set(load.answered) - recorded
    assert len(recorded - set(load.answered)) <= load.broken, "those that were about to be answered"
    print(f"{len(load.answered)} answers, {load.broken} connections broken, {dict(load.others)}", file=sys.stderr)
