"""Every tool on every kind of model, with golden requests; and a server that mixes answers up is found out by each."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import workload
from benchmarks.calling import shared_memory, storm
from benchmarks.errors import MeasurementError
from benchmarks.serving import load, overload_run, perf_analyzer, soak_run
from benchmarks.serving.load import Outcome
from benchmarks.workload import Workload
from contracts import golden, layout
from contracts.golden import GoldenRequest
from deploy.drill import results, run
from deploy.drill.results import DrillResult
from deploy.drill.run import DrillSettings, drill
from deploy.drill.server_copy import DrillCopy
from deploy.errors import DrillError
from deploy.triton.control import Control
from tests.benchmarks.conftest import Site
from tests.benchmarks.small_releases import MODELS

ALL = (*MODELS, "swapping")


def measured(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("model", "checked"),
    [
        ("words", {"grpc": ["likeliest"], "http": []}),
        ("priced", {"grpc": [], "http": []}),
        ("tokens", {"grpc": ["largest"], "http": []}),
        ("boxes", {"grpc": [], "http": []}),
    ],
)
def test_perf_analyzer_is_sent_golden_requests_and_checks_what_it_can(
    any_model: Site, model: str, checked: dict[str, list[str]]
) -> None:
    done = any_model.bench("perf", "--model", model, "--concurrency", "2", "--window", "0.1")
    found = measured(done)
    assert done.returncode == 0
    assert [m["protocol"] for m in found["measurements"] if m["throughput_per_s"] > 0] == ["grpc", "http"]
    assert found["checked"] == checked
    under_load = "; ".join(f"{' '.join(names)} over {protocol}" for protocol, names in checked.items() if names)
    assert f"answers checked before the load, and under it {under_load or 'none'}" in done.stdout


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_perf_analyzer_finds_answers_that_changed_places(any_model: Site, protocol: str) -> None:
    given = ("--model", "swapping", "--protocol", protocol, "--concurrency", "8", "--window", "0.2")
    done = any_model.bench("perf", *given)
    assert done.returncode == 1
    assert f"swapping gives wrong answers at concurrency 8 over {protocol}" in done.stderr
    assert "Output doesn't match expected output" in done.stderr


def locust(site: Site, *models: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "-f", str(layout.ROOT / "benchmarks" / "locustfile.py")),
            *("--headless", "-u", "4", "-r", "4", "-t", "2s", "--json", "--host", site.url, "--model", *models),
        ],
        cwd=layout.ROOT,
        env=site.workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_locust_checks_every_answer_and_finds_those_that_changed_places(any_model: Site) -> None:
    with locust(any_model, *MODELS) as right, locust(any_model, "swapping") as wrong:
        output, errors = right.communicate(timeout=60)
        assert right.returncode == 0, errors
        stats = {found["name"]: found for found in json.loads(output)}
        assert stats.keys() == {f"infer ({model})" for model in MODELS}
        assert all(found["num_requests"] > 5 and found["num_failures"] == 0 for found in stats.values())
        assert errors.count("golden requests; answers checked against the reference's") == len(MODELS)
        output, errors = wrong.communicate(timeout=60)
        assert wrong.returncode == 1
        assert json.loads(output)[0]["num_failures"] > 0
        assert "a wrong answer: y is" in errors


@pytest.mark.parametrize("model", MODELS)
def test_a_load_knows_right_answers_in_whatever_batch(any_model: Site, model: str) -> None:
    sent = any_model.sent(model)
    requests = load.with_answers(any_model.up.http, [load.build(request) for request in sent.requests])
    log = load.closed_loop(any_model.up.http, requests, 4, 0.3)
    assert set(log.outcome) == {Outcome.OK}
    assert set(log.which) == {*range(len(requests))}


def test_a_load_finds_answers_that_changed_places(any_model: Site) -> None:
    sent = any_model.sent("swapping")
    requests = load.with_answers(any_model.up.http, [load.build(request) for request in sent.requests])
    log = load.closed_loop(any_model.up.http, requests, 4, 0.3)
    assert Outcome.WRONG in log.outcome


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short of everything; the load comes from a thread, as a process of its own takes a second to begin."""
    for name in ("BEFORE_S", "AFTER_S"):
        monkeypatch.setattr(overload_run, name, 0.5)
    monkeypatch.setattr(overload_run, "_ROWS_UNDER_WAY", (1,))
    monkeypatch.setattr(overload_run, "ProcessPoolExecutor", lambda count, mp_context: ThreadPoolExecutor(count))
    monkeypatch.setattr(soak_run, "_PIECE_S", 0.3)


@pytest.mark.parametrize(("model", "rows"), [("words", 3), ("priced", 8), ("tokens", 2), ("boxes", 1), ("swapping", 1)])
def test_overload_puts_requests_of_any_model_together_and_checks_every_answer(
    any_model: Site, brief: None, model: str, rows: int
) -> None:
    settings = overload_run.Settings(any_model.sent(model), rows, seconds=0.3, closed_s=0.2)
    found = overload_run.run(any_model.up.http, any_model.up, settings, say=lambda line: None)
    assert {request.of.rows for request in found.requests} == {rows} or model == "boxes"
    assert all(request.of.answers for request in found.requests)
    wrong = any(finding.endswith(" requests: WRONG") for finding in found.findings)
    assert wrong == (model == "swapping"), found.findings


def test_a_server_that_is_never_right_is_not_overloaded(any_model: Site, brief: None) -> None:
    requests = load.with_answers(any_model.up.http, [load.build(any_model.sent("priced").requests[0])])
    other = replace(
        requests[0], of=replace(requests[0].of, answers={"price": np.zeros((1, 1), np.float32)}), answer=b""
    )
    log = load.closed_loop(any_model.up.http, [other], 1, 0.1)
    with pytest.raises(MeasurementError, match=r"no right answer with 1 connections within 0.1 s\nNote: \d+ WRONG"):
        overload_run._peak(1, log, 0.1)


@pytest.mark.parametrize("model", ALL)
def test_a_soak_finds_nothing_but_answers_that_changed_places(here: Site, brief: None, model: str) -> None:
    settings = soak_run.Settings(here.sent(model), minutes=0.5 / 60, reload_every_s=0, limit_mb_per_h=1e9)
    found = soak_run.run(here.up, settings)
    assert found.visits["answered"] > 0
    assert found.visits["refused"] > 0
    if model == "swapping":
        assert any(finding.endswith(" requests: WRONG") for finding in found.findings)
    else:
        assert found.findings == []
        assert found.outcomes["OK"] > 0


def drilled(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    repository: Path | None = None,
    images: tuple[Path, ...] = (),
) -> DrillResult:
    """A drill in which nothing happens, of the server that is up."""
    root = site.workspace.root if repository is None else repository.parent
    copy = DrillCopy(root, model, site.up.http, site.up.grpc)
    monkeypatch.setattr(run, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(run, "server_over_a_copy", lambda *given, **also: nullcontext(copy))
    settings = DrillSettings(images=images, requests=100, connections=4, quiet_s=0.1)
    return drill(settings, [("nothing", lambda copy: "nothing was done", None)])


@pytest.mark.parametrize("model", ["words_network", "priced", "tokens", "boxes"])
def test_a_drill_sends_golden_requests_of_the_ensemble_or_else_of_the_network(
    any_model: Site, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    found = drilled(any_model, monkeypatch, model)
    assert found.passed, found.verdict()
    assert found.model == model.removesuffix("_network")
    sent = f"{len(any_model.sent(found.model).requests)} golden requests"
    assert found.payload == f"{sent}; answers compared with the reference's and the idle server's"
    assert found.as_json()["sent"] == found.payload
    assert found.verdict().endswith(f". Sent: {found.payload}")


def test_a_drill_finds_answers_that_changed_places(any_model: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = drilled(any_model, monkeypatch, "swapping")
    assert not found.passed
    assert "a wrong answer: y is" in found.verdict()


def without_golden_requests(site: Site, folder: Path) -> Path:
    """The repository as it would be of releases that have none."""
    for config in site.workspace.repository.glob("*/config.pbtxt"):
        version = folder / "model_repository" / config.parent.name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(config.read_text())
    return folder / "model_repository"


def test_a_drill_without_golden_requests_says_what_it_sent(
    any_model: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = drilled(any_model, monkeypatch, "priced", without_golden_requests(any_model, tmp_path))
    said = "zeros: no golden requests; answers compared with the idle server's only"
    assert found.payload == said
    results.show(found, tmp_path)
    assert capsys.readouterr().out.count(said) == 2  # below the table, and in the verdict


def test_a_drill_sends_no_images_to_a_model_that_takes_none(
    any_model: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DrillError, match=r"priced takes no images\nNote: its inputs: room: FP32 \[-1, 3\]; place"):
        drilled(any_model, monkeypatch, "priced", images=(tmp_path / "any.png",))


def test_a_drill_of_a_server_that_is_wrong_from_the_start_does_not_begin(
    any_model: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = without_golden_requests(any_model, tmp_path)
    [first, *_] = any_model.sent("priced").requests
    golden.write([replace(first, answers={"price": first.answers["price"] + 1})], repository / "priced" / "1")
    with pytest.raises(DrillError, match=r"(?s)priced answers a golden request wrong before.*price is 1 away, 1e-05"):
        drilled(any_model, monkeypatch, "priced", repository)


def test_a_tool_that_has_nothing_to_send_says_which_input_it_lacks(any_model: Site, tmp_path: Path) -> None:
    repository = without_golden_requests(any_model, tmp_path)
    with pytest.raises(MeasurementError) as lacking:
        workload.find(any_model.url, "priced", repository)
    assert "nothing to send to priced as its input room: FP32 [-1, 3]; place: FP32 [-1, 2]" in str(lacking.value)
    assert "Hint: export it again, so that its release has golden requests" in str(lacking.value)
    with pytest.raises(MeasurementError, match=r"(?s)input text: BYTES.*name a folder of images: --images DIRECTORY"):
        workload.find(any_model.url, "words", repository)
    done = any_model.bench("overload", "--model", "words_counts")
    assert done.returncode == 1
    assert "there is nothing to send to words_counts as its input text: BYTES [-1, 1]" in done.stderr


def test_a_server_that_is_wrong_when_idle_is_not_measured(any_model: Site) -> None:
    sent = any_model.sent("tokens")
    bad = [replace(request, answers={"largest": request.answers["largest"] + 1}) for request in sent.requests]
    with pytest.raises(MeasurementError, match=r"tokens answers a golden request wrong, without any load: .* largest"):
        load.with_answers(any_model.up.http, [load.build(request) for request in bad])
    with pytest.raises(MeasurementError, match=r"tokens answers a golden request wrong, without any load: .* largest"):
        workload.answers(any_model.url, bad)


def test_samples_are_put_together_by_their_shapes(any_model: Site) -> None:
    sent = any_model.sent("tokens")
    assert {request.rows for request in sent.rows} == {1}
    lengths = [request.inputs["ids"].shape for request in sent.of_rows(3)]
    assert {rows for rows, _ in lengths} == {3}
    assert {length for _, length in lengths} == {1, 3, 5, 7}
    with pytest.raises(MeasurementError, match=r"(?s)does not take 9 samples in a request.*it takes 8 at most"):
        sent.of_rows(9)
    with pytest.raises(MeasurementError, match=r"(?s)boxes does not take 2 samples.*it takes one at a time"):
        any_model.sent("boxes").of_rows(2)


@pytest.mark.parametrize("model", MODELS)
def test_inputs_of_any_model_lie_in_shared_memory(here: Site, model: str) -> None:
    done = here.bench("shared-memory", "--model", model, "--rounds", "1", "--seconds", "0.05")
    assert done.returncode == 0, done.stderr
    assert all(way["shared_p50_us"][0] > 0 for way in measured(done)["ways"])


def test_shared_memory_finds_a_wrong_answer(here: Site) -> None:
    [first, *_] = here.sent("priced").requests
    bad = replace(first, answers={"price": first.answers["price"] + 1})
    with pytest.raises(MeasurementError, match="priced, 20 bytes of input: a wrong answer: price is 1 away"):
        shared_memory.measure(here.up, [bad], rounds=1, seconds=0.05)


def test_the_clients_are_compared_on_any_model(any_model: Site) -> None:
    done = any_model.bench("client", "--model", "boxes", "--rounds", "1", "--seconds", "0.05")
    found = measured(done)
    assert found["bulk"] == []
    assert "classify_many is for images with labels, which boxes is not about" in done.stdout
    assert len(found["overhead"]) == 12


def test_a_storm_finds_answers_that_changed_places(any_model: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "_WARM_UP_S", 0)
    url, requests = f"grpc://{any_model.up.grpc}", any_model.sent("swapping").requests
    with pytest.raises(MeasurementError, match="swapping under load: a wrong answer: y is"):
        storm.measure(url, requests, rounds=1, seconds=0.3)


def test_the_version_that_answers_is_found_with_a_golden_request(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros are no points: made-up requests would find out nothing about this one."""
    with Control(here.up) as control:
        assert {model: control.answering_version(model) for model in ALL} == dict.fromkeys(ALL, 1)
        monkeypatch.setattr(Control, "_made_up", lambda *given: pytest.fail("there are golden requests"))
        assert control.answering_version("boxes") == 1
        assert control.wrong_answer("boxes", 1) is None


def test_a_check_that_can_be_made_is_named(any_model: Site) -> None:
    def checkable(model: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        sent = any_model.sent(model)
        return perf_analyzer.checkable(sent, "grpc"), perf_analyzer.checkable(sent, "http")

    assert checkable("swapping") == (("y",), ("y",))
    assert checkable("tokens") == (("largest",), ())
    assert checkable("boxes") == ((), ())


def test_an_image_is_an_image_by_its_first_bytes() -> None:
    def sent(*texts: bytes) -> Workload:
        metadata = workload.ModelMetadata("any", (), (), max_batch_size=8)
        requests = tuple(GoldenRequest("any", {"in": np.array([[text]], np.object_)}, {}) for text in texts)
        return Workload(metadata, requests, "texts")

    assert sent(b"\x89PNG\r\n", b"\xff\xd8\xff\xe0").images == (b"\x89PNG\r\n", b"\xff\xd8\xff\xe0")
    assert sent(b"\x89PNG\r\n", b"a text").images == ()
