"""An ensemble serves alike as the ensemble and in one process: switched under load, with priorities, limits, cache."""

import dataclasses
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from contracts import golden, manifest, repository
from contracts.golden import GoldenRequest
from deploy.errors import ChangeError
from deploy.running import workers
from deploy.triton.state import Running
from deploy.versions import arm, choosing, reloading
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.test_switch import Load, served
from tests.deploy.upgrades import running
from tests.small_releases import release_of
from tests.tracked import MODEL_REPOSITORY
from tests.workspace import PREPROCESS

ADAPTER = (MODEL_REPOSITORY / PREPROCESS / "1" / "model.py").read_text()
# Marks a row as of its release; refuses what is below 0. A request of less than 1 takes as many seconds.
BEFORE = """
import time
import numpy as np

CALLED = "the marker"


class Refused(Exception):
    pass


class Step:
    def __init__(self, folder, config):
        self.n = {n}

    def answer(self, requests):
        return [self.one(request["IN"]) for request in requests]

    def one(self, x):
        if 0 < x[0, 0] < 1:
            time.sleep(float(x[0, 0]))
        if (x < 0).any():
            return Refused(f"{{x.min():g}} is below 0")
        if (x == 999).any():
            1 // 0
        if (x == 998).any():
            return {{"TAGGED": "no array"}}
        return {{"TAGGED": x + np.float32(1000 * self.n)}}
"""
NETWORK = """
import numpy as np

CALLED = "the network"


class Step:
    def __init__(self, folder, config):
        pass

    def answer(self, requests):
        return [self.one(request["TAGGED"] - np.float32(1000 * {n})) for request in requests]

    def one(self, x):
        return {{"OUT": np.where((x >= 0) & (x < 1000), x * {factor}, -1).astype(np.float32)}}
"""
STEP = """
backend: "python" max_batch_size: 8 {batching}
input [ {{ name: "{given}" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "{made}" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""
TENSORS = """
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""
ENSEMBLE = f"""
platform: "ensemble" {TENSORS}
ensemble_scheduling {{ step [
  {{ model_name: "before" model_version: -1
     input_map {{ key: "IN" value: "IN" }} output_map {{ key: "TAGGED" value: "TAGGED" }} }},
  {{ model_name: "network" model_version: -1
     input_map {{ key: "TAGGED" value: "TAGGED" }} output_map {{ key: "OUT" value: "OUT" }} }}
] }}
"""
QUEUE = """
dynamic_batching { priority_levels: 2 default_priority_level: 2
  default_queue_policy { max_queue_size: 16 default_timeout_microseconds: 5000000 allow_timeout_override: true } }
instance_group [ { kind: KIND_CPU count: 3 } ]
"""
ONE_PROCESS = f'backend: "inprocess" {TENSORS} {QUEUE}'
SHAPES = ("ensemble", "one process")


def publish(root: Path, shape: str, factor: int | None = None, more: str = "") -> int:
    """The next release, in the one shape or the other without a GPU; its number.

    Args:
        more: Of the ensemble's configuration.
    """
    with repository.new_version(root / "network") as staged:
        n = staged.version
        files = {
            "step.py": NETWORK.format(n=n, factor=factor or n),
            "model.py": ADAPTER,
            "release/network/config.pbtxt": STEP.format(batching="", given="TAGGED", made="OUT"),
            "release/before/config.pbtxt": STEP.format(batching=QUEUE, given="IN", made="TAGGED"),
            "release/before/1/step.py": BEFORE.format(n=n),
            "release/before/1/model.py": ADAPTER,
            "release/whole/config.pbtxt": f"{ENSEMBLE} {more}",
        }
        if shape == "one process":
            files["release/whole/configs/cpu.pbtxt"] = ONE_PROCESS
        for name, text in files.items():
            (staged.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (staged.directory / name).write_text(text)
        one = np.full((1, 1), 7, np.float32)
        golden.write([GoldenRequest("whole", {"IN": one}, {"OUT": n * one})], staged.directory)
        release = release_of(("network", "whole", "before"), family="whole", model="network", version=n)
        manifest.write(dataclasses.replace(release, files=manifest.files_of(staged.directory)), staged.directory)
        return n


def of_release(n: int, shape: str) -> set[str]:
    """What is served of it."""
    names = ("network", "whole", "before") if shape == "ensemble" else ("network", "whole")
    return {f"{name} {n}" for name in names}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Running]]:
    """Release 1 is of today's kind, 2 of the other: both stay on disk, for every test to begin with either."""
    workspace = Workspace(tmp_path_factory.mktemp("shapes"))
    (workspace.repository / "network").mkdir(parents=True)
    (workspace.repository / "network" / "config.pbtxt").write_text("")
    for shape in SHAPES:
        publish(workspace.repository, shape)
    key = workspace.root / "admin.key"
    key.touch(mode=0o600)
    key.write_text("k" * 32)
    options = ("--repository", workspace.repository, "--admin-key-file", key, "--drain", "3", "--cache-mb", "8")
    workspace.must("deploy", "up", "--detach", "--device", "cpu", *options, *port_options(free_ports()))
    yield workspace, running(workspace)
    workspace.down()


@pytest.fixture(scope="module", params=SHAPES)
def shaped(up: tuple[Workspace, Running], request: pytest.FixtureRequest) -> tuple[Running, int]:
    """A server with a release of that shape."""
    workspace, server = up
    number = SHAPES.index(request.param) + 1
    choosing.promote(server, workspace.repository, "network", number)
    assert served(server) == of_release(number, request.param)
    return server, number


def ask(server: Running, *rows: float, **options: Any) -> Any:
    tensor = triton.InferInput("IN", [len(rows), 1], "FP32")
    tensor.set_data_from_numpy(np.array(rows, np.float32).reshape(-1, 1))
    with triton.InferenceServerClient(server.http, concurrency=32, network_timeout=30) as client:
        return client.infer("whole", [tensor], **options)


def told(server: Running, *rows: float, **options: Any) -> str:
    """Why a request is refused."""
    with pytest.raises(triton.InferenceServerException) as failure:
        ask(server, *rows, **options)
    return f"{failure.value.status()} {failure.value.message()}"


def statistics(server: Running) -> dict[str, Any]:
    connection = http.client.HTTPConnection(server.http)
    connection.request("GET", "/v2/models/whole/stats")
    [found] = json.loads(connection.getresponse().read())["model_stats"]
    return dict(found)


@pytest.mark.slow
def test_a_release_of_the_other_shape_stands_beside(shaped: tuple[Running, int], up: tuple[Workspace, Running]) -> None:
    (server, number), (workspace, _) = shaped, up
    other = 3 - number
    stands = arm.put_up(server, workspace.repository, "network", other, lambda _: None)
    try:
        tensor = triton.InferInput("IN", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), 5, np.float32))
        with triton.InferenceServerClient(server.http) as client:
            for name, factor in (("whole", number), (f"whole.r{other}", other)):
                assert client.infer(name, [tensor]).as_numpy("OUT")[0, 0] == 5 * factor
    finally:
        assert arm.take_away(server, workspace.repository, "network", other, lambda _: None) == stands


def test_a_bad_request_is_told_in_the_same_words_and_fails_no_other(shaped: tuple[Running, int]) -> None:
    server, number = shaped
    assert told(server, -3) == "400 in ensemble 'whole', -3 is below 0"
    assert told(server, 999) == "500 in ensemble 'whole', the marker failed: ZeroDivisionError"
    no_array = told(server, 998)
    assert no_array.startswith("500 in ensemble 'whole', ") and "model.py" not in no_array
    load = Load(connections=6)
    with load.on(server):
        for _ in range(20):
            assert "400 in ensemble 'whole', " in told(server, 4, -1)
            assert "500 in ensemble 'whole', " in told(server, 998)
        load.more(50)
    assert not load.errors and set(load.answers) == {(float(number), str(number))}


def test_a_full_queue_refuses_and_who_has_priority_overtakes(shaped: tuple[Running, int]) -> None:
    """Three batches are at work, 16 requests of each priority wait: more are refused, and no urgent one is."""
    server, _ = shaped
    ended: list[tuple[int, str]] = []
    with triton.InferenceServerClient(server.http, concurrency=96, network_timeout=30) as client:
        sent = []
        for number, priority in enumerate((2,) * 80 + (1,) * 8):
            tensor = triton.InferInput("IN", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.array([[0.1 + number / 1e5]], np.float32))  # none that the cache knows
            sent.append((priority, client.async_infer("whole", [tensor], priority=priority)))
        for priority, each in sent:
            try:
                each.get_result()
                ended.append((priority, ""))
            except triton.InferenceServerException as error:
                ended.append((priority, error.message()))
    refused = [message for _, message in ended if message]
    assert refused and all("Exceeds maximum queue size" in message for message in refused), ended
    assert all(not message for priority, message in ended if priority == 1), "the urgent have a queue of their own"


def test_a_request_may_ask_to_wait_for_less(shaped: tuple[Running, int]) -> None:
    server, _ = shaped
    with triton.InferenceServerClient(server.http, concurrency=16, network_timeout=30) as client:
        tensor = triton.InferInput("IN", [8, 1], "FP32")
        busy = []
        for number in range(4):
            tensor.set_data_from_numpy(np.full((8, 1), 0.5 + number / 100, np.float32))
            busy.append(client.async_infer("whole", [tensor]))
        time.sleep(0.1)
        assert "Request timeout expired" in told(server, 321, timeout=1000)
        for each in busy:
            each.get_result()


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(shaped: tuple[Running, int], up: tuple[Workspace, Running]) -> None:
    server, _ = shaped
    model = "whole" if "before" not in {name.split()[0] for name in served(server)} else "before"

    def own() -> set[psutil.Process]:
        found = {process: workers.identify(process) for process in workers.find(server.shared_memory)}
        return {process for process, worker in found.items() if worker is not None and worker.model == model}

    before = own()
    assert len(before) == 3
    next(iter(before)).kill()
    wait_for(lambda: len(own()) == 3 and before - own(), 60)
    wait_for(lambda: _answers(server), 60)


def test_releases_of_both_shapes_are_switched_as_one_and_each_names_itself(up: tuple[Workspace, Running]) -> None:
    """From each shape to each: no request fails, and every answer is of the release that it names."""
    workspace, server = up
    root, load = workspace.repository, Load(connections=8)
    choosing.promote(server, root, "network", 2)
    with load.on(server):
        load.more(100)
        third = publish(root, "one process")
        reloading.reload(server, (), lambda _: None)
        assert served(server) == of_release(third, "one process")
        load.more(100)
        for number in (2, 1):
            assert choosing.rollback(server, root, "network", number).after == number
            load.more(100)
        fourth = publish(root, "ensemble")
        reloading.reload(server, (), lambda _: None)
        assert served(server) == of_release(fourth, "ensemble")
        load.more(100)
        choosing.promote(server, root, "network", third)
        load.more(100)
    assert not load.errors
    assert set(load.answers) == {(float(n), str(n)) for n in (1, 2, third, fourth)}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_release_whose_answers_are_wrong_never_serves(up: tuple[Workspace, Running], shape: str) -> None:
    workspace, server = up
    root, load = workspace.repository, Load(connections=2)
    before = choosing.promote(server, root, "network", 2).after
    bad = publish(root, shape, factor=40)
    with load.on(server), pytest.raises(ChangeError, match=f"version {bad} never served and is parked"):
        reloading.reload(server, (), lambda _: None)
    assert not load.errors and set(load.answers) == {(float(before), str(before))}
    assert served(server) == of_release(2, "one process")


@pytest.mark.slow
def test_the_cache_keeps_answers_and_no_failures(up: tuple[Workspace, Running]) -> None:
    """An ensemble that caches is served as one, whatever configs/cpu.pbtxt says."""
    workspace, server = up
    cached = publish(workspace.repository, "one process", more="response_cache { enable: true }")
    reloading.reload(server, (), lambda _: None)
    assert served(server) == of_release(cached, "ensemble")
    before = statistics(server)["inference_stats"]["cache_hit"]["count"]
    assert {float(ask(server, 123.25).as_numpy("OUT")[0, 0]) for _ in range(5)} == {123.25 * cached}
    assert statistics(server)["inference_stats"]["cache_hit"]["count"] >= before + 4
    assert {told(server, -5) for _ in range(3)} == {"400 in ensemble 'whole', -5 is below 0"}


def _answers(server: Running) -> bool:
    try:
        ask(server, 2)
    except triton.InferenceServerException:
        return False
    return True
