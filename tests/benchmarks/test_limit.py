"""What a machine answers without a server: a release's own steps and graph, called in processes of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import limit
from benchmarks.errors import MeasurementError
from contracts import golden, manifest
from tests.benchmarks import small_releases
from tests.conftest import Workspace
from tests.workspace import FAMILY

pytestmark = pytest.mark.heavy  # as it needs the server's environment


@pytest.fixture(scope="module")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("limit") / "model_repository"
    small_releases.write(made)
    return made


def test_an_ensemble_is_called_step_by_step_and_its_answers_are_checked(small_repository: Path) -> None:
    with limit.opened(small_repository, "words", processes=2) as opened:
        one, eight = opened.measure(1, 0.1), opened.measure(8, 0.1)
    assert (one.rows, eight.rows, one.processes) == (1, 8, 2)
    assert one.cpu_us > eight.cpu_us > 0, "eight in a call share what a call costs"
    assert one.per_s > 0
    assert 0 < one.p50_ms <= one.p99_ms


def test_what_a_step_costs_is_seen(small_repository: Path, tmp_path: Path) -> None:
    slow = tmp_path / "model_repository"
    small_releases.write(slow)
    source = slow / "words_counts" / "1" / "model.py"
    spin = "until = time.process_time() + 1e-3\n        while time.process_time() < until: pass\n        values ="
    source.write_text(source.read_text().replace("values =", spin, 1))
    with limit.opened(small_repository, "words") as as_it_is, limit.opened(slow, "words") as spinning:
        added_us = spinning.measure(1, 0.2).cpu_us - as_it_is.measure(1, 0.2).cpu_us
    assert 900 < added_us < 1500


@pytest.mark.parametrize("model", ["tokens", "boxes"])
def test_a_network_is_called_alone(small_repository: Path, model: str) -> None:
    with limit.opened(small_repository, model) as opened:
        assert opened.measure(1, 0.05).per_s > 0
        assert opened.takes(8) == (model != "boxes")


def test_a_wrong_answer_ends_it(tmp_path: Path) -> None:
    root = tmp_path / "model_repository"
    small_releases.write(root)
    version = root / "priced" / "1"
    wrong = [replace(r, answers={n: v + np.float32(1) for n, v in r.answers.items()}) for r in golden.read(version)]
    golden.write(wrong, version)
    with limit.opened(root, "priced") as opened, pytest.raises(MeasurementError, match="wrong answer"):
        opened.measure(1, 0.05)


def test_a_step_that_only_a_server_runs_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "model_repository"
    small_releases.write(root)
    config = root / "priced" / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "dali"'))
    with pytest.raises(MeasurementError, match="dali"), limit.opened(root, "priced"):
        pass


def test_a_model_without_golden_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="golden requests"), limit.opened(tmp_path, "nothing"):
        pass


def test_a_published_release_has_a_limit(shared: Workspace, release: Path) -> None:
    """Steps with modules of their own beside them, one of which lowers its priority."""
    with limit.opened(shared.repository, FAMILY) as opened:
        assert opened.measure(16, 0.1).per_s > 0
        assert opened.graph_sha256 == manifest.sha256(release / "model.onnx")


def test_it_is_called_with_what_it_is_given_and_nothing_else(small_repository: Path) -> None:
    first, *_ = golden.find(small_repository, "priced")
    other = replace(first, answers={name: values + np.float32(1) for name, values in first.answers.items()})
    with limit.opened(small_repository, "priced", asked=[first]) as opened:
        assert opened.measure(1, 0.05).per_s > 0
    wrong = pytest.raises(MeasurementError, match="wrong answer")
    with limit.opened(small_repository, "priced", asked=[other]) as opened, wrong:
        opened.measure(1, 0.05)
