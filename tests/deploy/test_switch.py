"""A release is switched as one: two that differ in everything but their public names, under load."""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from contracts import golden, manifest, repository
from contracts.golden import GoldenRequest
from deploy.errors import ChangeError
from deploy.keeping import standing
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import choosing, family, reloading
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.upgrades import running
from tests.small_releases import release_of

CONNECTIONS = 16
# Says of which release a row comes, in a number that only the network of that release takes.
BEFORE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.Tensor("TAGGED", (x + 1000 * {n}).astype("{dtype}"))
"""
# Multiplies by its number; what another release has prepared becomes -1.
NETWORK = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "TAGGED").as_numpy().astype(np.float32) - 1000 * {n}
        right = (x >= 0) & (x < 1000)
        return pb_utils.Tensor("{output}", np.where(right, x * {factor}, -1).astype(np.float32))
"""
STEP = """
backend: "python" max_batch_size: {rows} {batching}
input [ {{ name: "{given}" data_type: TYPE_{given_type} dims: [ 1 ] }} ]
output [ {{ name: "{made}" data_type: TYPE_{made_type} dims: [ 1 ] }} ]
"""
ENSEMBLE = """
platform: "ensemble" max_batch_size: {rows}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [
  {{ model_name: "before" model_version: -1
     input_map {{ key: "IN" value: "IN" }} output_map {{ key: "TAGGED" value: "TAGGED" }} }},
  {{ model_name: "{network}" model_version: -1
     input_map {{ key: "TAGGED" value: "TAGGED" }} output_map {{ key: "{output}" value: "OUT" }} }}
] }}
"""


def publish(
    root: Path, *, factor: int | None = None, network: str = "network", whole: str = "whole", more: bool = False
) -> Path:
    """The next release: odd ones and even ones differ in types, names, batching, batch sizes and labels.

    Args:
        more: With a second ensemble, and a step of its own.
    """
    with repository.new_version(root / network) as staged:
        version, odd = staged.version, staged.version % 2
        n = version if network == "network" else version + 50
        output, dtype, rows = ("ODD", "FP32", 4) if odd else ("EVEN", "INT32", 8)
        batching = "" if odd else "dynamic_batching { }"
        files = {
            "model.py": NETWORK.format(n=n, output=output, factor=factor or n),
            f"release/{network}/config.pbtxt": STEP.format(
                rows=rows, batching=batching, given="TAGGED", given_type=dtype, made=output, made_type="FP32"
            ),
            "release/before/config.pbtxt": STEP.format(
                rows=rows, batching=batching, given="IN", given_type="FP32", made="TAGGED", made_type=dtype
            ),
            "release/before/1/model.py": BEFORE.format(n=n, dtype="float32" if odd else "int32"),
            "release/before/labels.txt": f"of {n}",
            f"release/{whole}/config.pbtxt": ENSEMBLE.format(rows=rows, network=network, output=output),
        }
        if more:
            files["release/more/config.pbtxt"] = files[f"release/{whole}/config.pbtxt"].replace("before", "sooner")
            files |= {name.replace("before", "sooner"): text for name, text in files.items() if "before" in name}
        for name, text in files.items():
            (staged.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (staged.directory / name).write_text(text)
        one = np.full((1, 1), 7, np.float32)
        golden.write([GoldenRequest(whole, {"IN": one}, {"OUT": n * one})], staged.directory)
        models = (network, whole, "before", *(("more", "sooner") if more else ()))
        release = release_of(models, family=whole, model=network, version=version)
        manifest.write(dataclasses.replace(release, files=manifest.files_of(staged.directory)), staged.directory)
        return root / network / str(version)


class Load:
    """What came of requests to a model over many connections."""

    def __init__(self, model: str = "whole", connections: int = CONNECTIONS) -> None:
        self._model, self._connections = model, connections
        self.errors: list[str] = []
        self.answers: Counter[tuple[float, str]] = Counter()  # {(the factor, the version in the response): how many}

    @contextmanager
    def on(self, server: Running) -> Iterator[None]:
        over = threading.Event()
        threads = [
            threading.Thread(target=self._send, args=(server.http, n, over)) for n in range(1, self._connections + 1)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def more(self, count: int = 200) -> None:
        """Wait for some more answers."""
        until = sum(self.answers.values()) + count
        wait_for(lambda: sum(self.answers.values()) >= until or self.errors)

    def _send(self, address: str, number: int, over: threading.Event) -> None:
        tensor = triton.InferInput("IN", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), number, np.float32))
        with triton.InferenceServerClient(address) as client:
            while not over.is_set():
                try:
                    result = client.infer(self._model, [tensor])
                except Exception as error:  # whatever it is, none is expected
                    self.errors.append(str(error))
                    time.sleep(0.02)
                    continue
                factor = float(result.as_numpy("OUT")[0, 0]) / number
                self.answers[factor, result.get_response()["model_version"]] += 1


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Running]]:
    workspace = Workspace(tmp_path_factory.mktemp("switch"))
    (workspace.repository / "network").mkdir(parents=True)
    (workspace.repository / "network" / "config.pbtxt").write_text("none of it decides an answer: {")
    publish(workspace.repository)
    key = workspace.root / "admin.key"
    key.touch(mode=0o600)
    key.write_text("k" * 32)
    options = (*("--repository", workspace.repository, "--admin-key-file", key), "--drain", "3")
    options = (*options, *port_options(free_ports()))
    workspace.must("deploy", "up", "--detach", *options)
    yield workspace, running(workspace)
    workspace.down()


def served(server: Running) -> set[str]:
    with Control(server) as control:
        return {f"{m.name} {m.version}" for m in control.models() if m.state == "READY"}


def of_release(n: int) -> set[str]:
    return {f"network {n}", f"before {n}", f"whole {n}"}


def test_releases_that_differ_in_everything_are_switched_as_one(up: tuple[Workspace, Running]) -> None:
    workspace, server = up
    root, load = workspace.repository, Load()
    publish(root)
    with load.on(server):
        load.more()
        assert [str(change) for change in reloading.reload(server, (), lambda _: None)] == ["network: version 1 → 2"]
        load.more()
        assert choosing.rollback(server, root, "whole", None).after == 1
        load.more()
        assert choosing.promote(server, root, "network", None).after == 2
        load.more()
    assert not load.errors
    assert set(load.answers) == {(1.0, "1"), (2.0, "2")}, "a mixture, or another release than the response says"
    assert served(server) == of_release(2)
    assert {path.name for path in Path(server.served).iterdir()} == {"network", "before", "whole"}


def test_a_release_whose_answers_are_wrong_never_serves(up: tuple[Workspace, Running]) -> None:
    workspace, server = up
    root, load = workspace.repository, Load()
    before = repository.versions(root / "network")
    bad = int(publish(root, factor=40).name)
    with load.on(server):
        load.more(50)
        with pytest.raises(ChangeError, match=f"version {bad} never served and is parked") as failure:
            reloading.reload(server, ["before"], lambda _: None)
        with pytest.raises(ChangeError, match="nothing has changed"):
            choosing.promote(server, root, "network", bad)
        load.more(50)
    assert f"version {before[-1]} goes on serving. whole version {bad} gives a wrong answer" in str(failure.value)
    assert not load.errors and set(load.answers) == {(float(before[-1]), str(before[-1]))}
    assert served(server) == of_release(before[-1])
    with Control(server) as control:
        assert control.ready()


def test_what_is_left_of_a_killed_command_is_put_right_by_the_next_one(
    up: tuple[Workspace, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, server = up
    root, now = workspace.repository, repository.versions(workspace.repository / "network")[-1]

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:  # right after the public name was pointed at the arm; nothing is tidied up
        patch.setattr(family._Change, "settle", killed)
        patch.setattr(family._Change, "take_back", lambda _: None)
        patch.setattr(standing, "withdraw", lambda *_: None)
        with pytest.raises(SystemExit):
            choosing.promote(server, root, "network", now - 1)
    assert f"whole {now - 1}" in served(server) and f"network.r{now - 1} {now - 1}" in served(server)
    assert repository.versions(root / "network")[-1] == now
    reloading.reload(server, (), lambda _: None)
    assert served(server) == of_release(now)


def test_what_only_the_release_before_had_is_unloaded_and_comes_back_with_it(up: tuple[Workspace, Running]) -> None:
    workspace, server = up
    root, load = workspace.repository, Load(connections=4)
    before = repository.versions(root / "network")[-1]
    publish(root)
    more = int(publish(root, more=True).name)
    with load.on(server):
        said: list[str] = []
        reloading.reload(server, (), said.append)
        assert {"    more: new", "    sooner: new"} <= {*said}
        assert served(server) == {*of_release(more), f"more {more}", f"sooner {more}"}
        less = int(publish(root).name)
        said.clear()
        reloading.reload(server, (), said.append)
        rows = "4 → 8" if more % 2 else "8 → 4"
        assert {"    more: gone", "    sooner: gone", f"    whole: max_batch_size {rows}"} <= {*said}
        load.more()
        assert served(server) == of_release(less)
        assert {path.name for path in Path(server.served).iterdir()} == {"network", "before", "whole"}
        choosing.rollback(server, root, "network", None)
        assert served(server) == {*of_release(more), f"more {more}", f"sooner {more}"}
        choosing.promote(server, root, "network", None)
        assert served(server) == of_release(less)
        load.more()
    assert not load.errors and set(load.answers) <= {(float(n), str(n)) for n in (before, more, less)}
    with Control(server) as control:
        assert control.ready()


def test_two_releases_that_share_a_step_are_switched_each_by_itself(up: tuple[Workspace, Running]) -> None:
    """Both have sealed a step `before`, each its own."""
    workspace, server = up
    root, one, other = workspace.repository, Load(connections=2), Load("rest", 2)
    (root / "second").mkdir()
    (root / "second" / "config.pbtxt").write_text("")
    publish(root, network="second", whole="rest")
    reloading.reload(server, (), lambda _: None)
    now = repository.versions(root / "network")[-1]
    assert served(server) == {*of_release(now), "second 1", "rest 1", "before.of_second 1"}
    with one.on(server), other.on(server):
        publish(root, network="second", whole="rest")
        reloading.reload(server, (), lambda _: None)
        other.more()
        choosing.rollback(server, root, "network", None)
        one.more()
        choosing.promote(server, root, "before", None)
        one.more()
    assert served(server) == {*of_release(now), "second 2", "rest 2", "before.of_second 2"}
    assert not one.errors and not other.errors
    assert set(other.answers) == {(51.0, "1"), (52.0, "2")}
    assert set(one.answers) == {(float(now), str(now)), (float(now - 1), str(now - 1))}


def test_the_next_server_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    from deploy.served import private

    left = tmp_path / "served" / "left"
    (left / "repository").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_SERVED", str(tmp_path / "served"))
        one, other = private.make(None), private.make(None)
        assert not left.exists() and one.place.is_dir() and one.place != other.place
        assert [place.stat().st_mode & 0o777 for place in (one.place, other.place)] == [0o700, 0o700]
        one.remove()
        assert not one.place.exists() and other.place.is_dir()
        other.remove()
