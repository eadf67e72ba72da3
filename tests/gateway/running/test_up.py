"""`python -m gateway up` as a process: several workers, one that dies, a port that is taken, a Triton beside it."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.__main__ import main
from gateway.errors import SettingsError, StartError
from gateway.running import triton
from gateway.settings import sources
from tests.conftest import free_ports
from tests.gateway import typed_models, whole
from tests.gateway.tritons import Running
from tests.gateway.whole import Whole
from tests.redis_server import serving

ROW = {"image": "boot"}
PATH = "/v1/models/labels/predict"

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def two(typed_triton: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Two workers that count in a Redis."""
    folder = tmp_path_factory.mktemp("two")
    with serving(folder) as redis, whole.up(
        folder, typed_triton.address, listen__workers="2", quota__storage=redis.url, quota__wait_s="20"
    ) as running:  # fmt: skip
        yield running


def workers(running: Whole) -> list[psutil.Process]:
    children = psutil.Process(running.process.pid).children(recursive=True)
    return [child for child in children if "gateway.running.workers" in child.cmdline()]


def test_workers_count_quotas_and_retries_together(two: Whole) -> None:
    assert len(workers(two)) == 2
    key = two.key(requests_long="20/hour")
    statuses = [two.ask("POST", PATH, {"rows": [ROW]}, key=key).status for _ in range(30)]
    assert statuses.count(200) == 20 and statuses.count(429) == 10
    headers = {"content-type": "application/json", "idempotency-key": "one"}
    answers = [two.ask("POST", PATH, {"rows": [ROW]}, headers) for _ in range(12)]
    assert len({answer.body for answer in answers}) == 1  # whichever worker was asked


def test_metrics_are_right_whichever_worker_is_asked(two: Whole) -> None:
    def counted() -> float:
        text = two.ask("GET", "/metrics").body.decode()
        found = re.findall(r'gateway_requests_total\{[^}]*model="labels"[^}]*status="200"\} ([\d.]+)', text)
        return sum(map(float, found))

    before = counted()
    for _ in range(25):
        two.ask("POST", PATH, {"rows": [ROW]})
    assert {counted() for _ in range(8)} == {before + 25}


def test_a_worker_that_dies_is_started_again_and_the_other_answers(two: Whole) -> None:
    before = workers(two)
    before[0].kill()
    for _ in range(40):
        assert two.ask("POST", PATH, {"rows": [ROW]}).status == 200
    deadline = time.monotonic() + 20
    while len(now := [each for each in workers(two) if each.is_running() and each.status() != "zombie"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert before[0].pid not in {each.pid for each in now}


def test_the_first_start_makes_the_tables_before_it_reads_keys(gateway: Whole) -> None:
    """Nothing was there before; what it says is where it answers."""
    gateway.admin()
    log = (gateway.folder / "gateway.log").read_text()
    assert "cannot be read" not in log and "no such table" not in log and "warning: " not in log, log


def test_a_store_that_is_not_there_keeps_nobody_from_starting(typed_triton: Running, tmp_path: Path) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    with whole.up(tmp_path, typed_triton.address, options=("--without-writer",), store__url=url) as running:
        assert running.ask("GET", "/livez", key="").status == 200
        log = (tmp_path / "gateway.log").read_text()
    assert "warning: the database postgresql://nobody@127.0.0.1" in log and "Traceback" not in log, log


def test_whoever_starts_it_may_die_and_no_worker_is_left(two: Whole) -> None:
    """The last of what is done to these two."""
    children = psutil.Process(two.process.pid).children(recursive=True)
    two.process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, 15)
    assert len(children) >= 3 and alive == []


def test_a_port_that_is_taken_is_said_before_anything_is_started(
    gateway: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("listen.host", "listen.port"):
        monkeypatch.setenv(sources.variable(name), "127.0.0.1" if name.endswith("host") else "0")  # `up` sets them
    monkeypatch.setattr(triton, "beside", pytest.fail)
    with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1.*\n.*--port"):
        main(["up", "--port", str(gateway.port), "--with-triton"])


def test_what_is_for_a_triton_that_is_not_started_is_refused() -> None:
    with pytest.raises(SettingsError, match="--grpc-port is for Triton, which is not started"):
        main(["up", "--", "--grpc-port", "9001"])


@pytest.mark.slow
def test_with_triton_one_command_serves_a_model_repository_on_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all of it ends with it."""
    monkeypatch.setenv("MODEL_REPOSITORY", str(typed_models.repository(tmp_path / "models")))
    grpc, metrics = free_ports(2)
    behind = ("--with-triton", "--", "--grpc-port", str(grpc), "--metrics-port", str(metrics))
    with whole.up(tmp_path / "g", options=behind) as running:
        assert running.ask("POST", PATH, {"rows": [ROW]}).status == 200
        children = psutil.Process(running.process.pid).children(recursive=True)
        [server] = [child for child in children if child.name() == "tritonserver"]
        assert any(word.startswith("--http-address=unix:") for word in server.cmdline())
        assert {each.laddr.port for each in server.net_connections("tcp") if each.status == "LISTEN"} == {grpc, metrics}
        # What keeps it up starts it again, on the same socket.
        server.kill()
        deadline = time.monotonic() + 60
        while running.ask("POST", PATH, {"rows": [ROW]}).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    _, alive = psutil.wait_procs(children, 30)
    assert alive == []
