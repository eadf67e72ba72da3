"""How cost grows: what is written to measure it, and points from a real server."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.errors import MeasurementError
from benchmarks.growth import asked, command, inputs, models, versions
from benchmarks.growth.asked import Point
from benchmarks.releases.checkout import Up
from contracts import manifest, repository
from tests.benchmarks.conftest import Site
from tests.conftest import Workspace


def test_the_slope_is_that_of_a_line_on_logarithmic_axes() -> None:
    assert command._slope([(1, 3), (10, 30), (100, 300)]) == "1.00"
    assert command._slope([(1, 8), (2, 4), (4, 2)]) == "-1.00"
    assert command._slope([(1, 5), (10, 5), (100, 5)]) == "0.00"
    for points in ([(1, 0), (2, 1), (4, 1)], [(1, 1), (2, 2)], [(1, float("inf")), (2, 1), (4, 1), (8, 2)]):
        assert command._slope(points) == "–"


def test_sizes_are_what_the_page_says() -> None:
    assert max(command.SIZES["models"]) == 50
    assert max(command.SIZES["connections"]) == 1024
    assert max(command.SIZES["versions"]) == 1000
    assert all(sizes[0] in (1, 28) for sizes in command.SIZES.values())


def test_what_cannot_be_measured_is_said_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    options = argparse.Namespace(what=["batch", "versions"], sizes=[8], most=4, model=None, seconds=0.1)
    assert command.main(options) == 1
    assert capsys.readouterr().out.count("no size is left up to 4") == 2


def test_a_release_that_is_not_sealed_is_said(tmp_path: Path) -> None:
    (tmp_path / "model" / "1").mkdir(parents=True)
    with pytest.raises(MeasurementError, match="no sealed release"):
        versions.write(tmp_path / "model" / "1", tmp_path / "many", 3)


@pytest.mark.heavy
def test_versions_are_links_to_one_release_and_are_what_was_published(release: Path, shared: Workspace) -> None:
    into = shared.root / "many"
    before = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}
    versions.write(release, into, 12)
    assert repository.versions(into / release.parent.name) == [*range(1, 13)]
    assert (into / release.parent.name / "7" / "model.onnx").samefile(release / "model.onnx")
    assert manifest.read(into / release.parent.name / "7").version == 7
    said = shared.must("export", "verify", "--repository", into, "--json")
    assert said.count('"version"') >= 12 or len(json.loads(said)) == 12
    assert before == {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}, "nothing of it changed"


@pytest.mark.heavy
def test_points_of_a_server_that_is_up(here: Site) -> None:
    up = Up(0, here.up.http, here.up.triton.pid)
    sent = here.sent("words")
    rows = list(asked.rows(up, sent, (1, 4, 16), 0.2))
    assert [point.size for point in rows] == [1, 4], "as many as the model takes"
    assert rows[1].cpu_us < rows[0].cpu_us, "four in a request share what a request costs"
    for point in [*rows, *asked.connections(up, sent, (1, 8), 0.2), *inputs.texts(up, sent, (1, 50), 0.2)]:
        assert point.per_s > 0 and point.p50_ms <= point.p99_ms and point.memory_mb > 10 and point.lost == 0


@pytest.mark.slow
@pytest.mark.heavy
def test_more_models_take_more_memory(tmp_path: Path) -> None:
    one, four = models.measure(tmp_path, (1, 4), 0.3)
    assert four.memory_mb > one.memory_mb + 50 and one.per_s > 0


@pytest.mark.slow
@pytest.mark.heavy
def test_the_command_measures_the_stand_in(workspace: Workspace) -> None:
    done = workspace.run_here("benchmarks", "growth", "image", "connections", "--most", "56", "--seconds", "0.3")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads(done.stdout.splitlines()[-1])
    assert [Point(**point).size for point in kept["image"]] == [28, 56]
    assert kept["connections"][-1]["size"] == 16
    left = [path for path in (workspace.root / "artifacts").iterdir() if path.name.startswith("growth-")]
    assert not left, "scratch is removed"
