"""Several families in one server: what is measured of each, and that loading one leaves the others alone."""

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.errors import MeasurementError
from benchmarks.releases import families, families_run
from benchmarks.releases.families_run import Family, Latency, Measured, Memory
from benchmarks.serving import load
from benchmarks.serving.load import Outcome
from contracts import golden
from deploy.errors import ChangeError
from deploy.running import workers
from deploy.triton.control import Control
from deploy.versions import reloading
from tests.benchmarks.conftest import Site
from tests.deploy import tiny_models

ADDED = ("(float[b,1] x) => (float[b,1] y) { y = Neg(x) }", "max_batch_size: 8")


def measured(model: str, *, beside: bool = True, memory: bool = True) -> Measured:
    alone = tuple(Latency(1.0, p99_ms, 100, 0) for p99_ms in (2.0, 4.0, 3.0))
    others = tuple(Latency(1.5, p99_ms, 100, 0) for p99_ms in (4.0, 6.0, 6.0)) if beside else ()
    return Measured(Family(model, (model,), 3, ()), Memory(2, 30.0, 41.0) if memory else None, 1234.0, alone, others)


def test_each_family_is_measured_alone_and_beside_the_others(here: Site) -> None:
    found = families_run.find(here.up, ["words", "tokens"])
    assert {family.model: {*family.models} for family in found} == {
        "tokens": {"tokens"},
        "words": {"words", "words_network", "words_counts"},
    }
    results = families_run.run(here.up, found, rounds=1, seconds=0.3)
    for result in results:
        assert result.peak_per_s > 0 and result.memory is not None
        assert result.memory.processes == len(result.family.models) - (result.family.model == "words")
        assert 0 < result.memory.own_mb <= result.memory.proportional_mb
        for latency in (*result.alone, *result.beside):
            assert 0 < latency.p50_ms <= latency.p99_ms and latency.failed == 0 and latency.requests >= 20
        assert len(result.alone) == len(result.beside) == 1


def test_all_that_have_golden_requests_are_found_and_what_is_wrong_is_no_figure(here: Site) -> None:
    assert [family.model for family in families_run.find(here.up)] == ["boxes", "priced", "swapping", "tokens", "words"]
    [swapping] = families_run.find(here.up, ["swapping"])
    with pytest.raises(MeasurementError, match=r"swapping gave .* wrong answers under load"):
        families_run.run(here.up, [swapping], rounds=1, seconds=0.2)
    with pytest.raises(MeasurementError, match="nothing is not served, or has no golden requests"):
        families_run.find(here.up, ["nothing"])


def test_the_table_and_the_picture_have_the_medians(tmp_path: Path) -> None:
    shown = families.table([measured("ferries"), measured("pumps", beside=False, memory=False)])
    cells = [[*column.cells] for column in shown.columns]
    assert [row[0] for row in cells] == [
        "ferries",
        "3",
        "2",
        "41",
        "1,234",
        "1.00",
        "3.00",
        "1.50",
        "6.00",
        "2.00 (1.50 … 2.00)",
    ]
    assert [row[1] for row in cells][2:4] == ["–", "–"] and [row[1] for row in cells][-3:] == ["–", "–", "–"]
    families.plot([measured("ferries"), measured("pumps", beside=False, memory=False)], tmp_path / "families.png")
    assert (tmp_path / "families.png").stat().st_size > 5_000


def test_loading_a_model_leaves_the_others_alone(here: Site) -> None:
    """One is added, one that does not load is tried, and one is loaded anew, while two others are asked."""
    root = Path(here.up.repository)
    asked = [request for model in ("words", "priced") for request in here.sent(model).rows]
    requests = load.with_answers(here.up.http, [load.build(request) for request in asked])
    own = ("words_counts", "words_network", "priced")

    def processes() -> dict[str, int]:
        found = {workers.identify(process): process.pid for process in workers.find(here.up.shared_memory)}
        return {worker.instance: pid for worker, pid in found.items() if worker and worker.model in own}

    before, stop, outcomes = processes(), threading.Event(), Counter[int]()

    def ask() -> None:
        while not stop.is_set():
            outcomes.update(load.closed_loop(here.up.http, requests, 4, 0.25).outcome.tolist())

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            tiny_models.add(root, "added", *ADDED)
            reloading.reload(here.up, ["added"], lambda line: None)
            broken = tiny_models.add(root, "broken", *ADDED)
            (broken / "model.onnx").write_bytes(b"no graph")
            with pytest.raises(ChangeError, match="broken"):
                reloading.reload(here.up, ["broken"], lambda line: None)
            shutil.copytree(root / "tokens" / "1", root / "tokens" / "2")
            reloading.reload(here.up, ["tokens"], lambda line: None)
            with Control(here.up) as control:
                served = {version.name for version in control.models() if version.state == "READY"}
        finally:
            stop.set()
            asking.result()
            for folder in (root / "added", root / "broken", root / "tokens" / "2"):
                shutil.rmtree(folder, ignore_errors=True)
            reloading.reload(here.up, [], lambda line: None)
    assert {"added", "tokens", *own} <= served and "broken" not in served
    assert outcomes.keys() == {Outcome.OK} and outcomes.total() > 100
    assert processes() == before and len(before) == len(own)
    assert golden.find(root, "tokens")
