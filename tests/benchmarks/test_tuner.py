"""The tuner: settings in a configuration's text, what is tried, and a search on a real server."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.errors import MeasurementError
from benchmarks.limit import cores
from benchmarks.releases import released
from benchmarks.tuning import candidate, change, search, settings_of_model
from benchmarks.tuning.candidate import Level, Objective
from benchmarks.tuning.command import compared
from benchmarks.tuning.search import Found, Search
from benchmarks.tuning.settings_of_model import Configured, Tunable, of_text
from benchmarks.tuning.space import FEWEST_WITH_POLICY, Space, values_of
from contracts import bundle, manifest, model_config
from contracts.files import locks
from deploy.served import inside
from tests import small_releases as releases
from tests.benchmarks import small_releases
from tests.conftest import Workspace
from tests.tracked import tracked_models

PLAIN = """
backend: "onnxruntime"  # kept
max_batch_size: 16
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 500 }
"""


def configured(text: str) -> Configured:
    return of_text("model", Path("config.pbtxt"), text)


def test_settings_are_read_and_written_and_comments_are_kept() -> None:
    plain = configured(PLAIN)
    assert plain.settings == Tunable(instances=1, preferred=(4,), delay_us=500, queue=None, threads=0)
    wanted = Tunable(instances=3, preferred=(8, 16), delay_us=0, queue=None, threads=2)
    text = plain.changed(wanted)
    assert configured(text).settings == wanted
    assert "# kept" in text and "max_queue_delay" not in text
    assert configured(text).changed(plain.settings).count("instance_group") == 1
    assert plain.changed(plain.settings) == PLAIN


def test_every_configuration_of_git_can_be_changed_to_everything_that_is_tried() -> None:
    paths = [*tracked_models("*/configs/cpu.pbtxt"), *tracked_models("*/config.pbtxt")]
    looked_at = 0
    for path in paths:
        each = of_text(path.parent.name, path, path.read_text())
        for name, values in values_of(each).items():
            for value in values:
                if name == "preferred":
                    value = tuple(int(size) for size in value.split(",") if size)
                wanted = replace(each.settings, **{name: value})
                assert of_text("", path, each.changed(wanted)).settings == wanted, path
                looked_at += 1
    assert looked_at > 50


def test_what_cannot_be_changed_by_itself_is_said() -> None:
    twice = PLAIN.replace("}", "default_queue_policy { max_queue_size: 4 } priority_levels: 1 }") + (
        "# max_queue_size: 4 is what it was\n"
    )
    with pytest.raises(MeasurementError, match="cannot be changed by itself"):
        configured(twice).changed(replace(configured(twice).settings, queue=8))


def test_beside_a_queue_policy_there_is_no_delay_and_no_fewer_than_three_instances() -> None:
    """With two, and with a delay, Triton 2.51 stalls."""
    policy = PLAIN.replace("max_queue_delay_microseconds: 500", "default_queue_policy { max_queue_size: 64 }")
    values = values_of(configured(policy))
    assert min(values["instances"]) == FEWEST_WITH_POLICY == 3
    assert "delay_us" not in values and 64 in values["queue"]
    assert min(values_of(configured(PLAIN))["instances"]) == 1


def test_todays_values_are_among_those_that_are_tried() -> None:
    odd = PLAIN.replace("500", "777").replace("[ 4 ]", "[ 3, 5 ]")
    space = Space({"model": configured(odd)})
    assert space.settings(space.today()) == {"model": configured(odd).settings}
    assert 777 in space.values["model.delay_us"] and "3,5" in space.values["model.preferred"]
    assert cores() in space.values["model.threads"]


def test_what_differs_is_said() -> None:
    before = {"model": configured(PLAIN).settings}
    after = {"model": replace(before["model"], instances=2, preferred=())}
    assert settings_of_model.described(after, before) == ["model: instances 1 -> 2", "model: preferred 4 -> none"]


def test_of_one_model_there_is_one_search_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    """The second one would take the first one's server down, and its trial for one that was stopped."""
    small_releases.write(workspace.repository)
    folder = workspace.root / "artifacts" / "tuning" / "words"
    folder.mkdir(parents=True)
    with locks.locked(folder / ".lock"):
        done = tune(workspace, "--p99-ms", "20")
    assert done.returncode == 1 and "another search for words is under way" in done.stderr


def test_trials_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    """Half a file, or a disk that is full: Optuna speaks of SQL."""
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\x00" + bytes(100))
    with pytest.raises(
        MeasurementError, match=r"which has the trials so far, cannot be used\n.*\n.*move the file away"
    ):
        search._opened(cast(Search, SimpleNamespace(folder=tmp_path, name="words")))
    assert (tmp_path / "study.db").is_file()


def test_a_repository_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="belongs to no release"):
        released.asked(tmp_path / "missing", "words")


def test_what_is_tried_of_a_sealed_release_is_served_as_one(tmp_path: Path) -> None:
    """With the changed settings in its bundle, and so with the ensembles in one process that its release has."""
    root, into = tmp_path / "today", tmp_path / "tried"
    small_releases.write(root)
    (root / "words" / "configs").mkdir()
    tensors = (root / "words" / "config.pbtxt").read_text().partition("ensemble_scheduling")[0]
    one_process = tensors.replace('platform: "ensemble"', 'backend: "inprocess"') + "dynamic_batching { }"
    (root / "words" / "configs" / "cpu.pbtxt").write_text(one_process)
    version = root / "words_network" / "1"
    models = bundle.write(root, "words_network", version)
    made = releases.release_of(models, model="words_network", version=1, files=manifest.files_of(version))
    manifest.write(made, version)
    release = released.asked(root, "words")
    models_of_it = search.configured(release)
    settings = {name: each.settings for name, each in models_of_it.items()}
    settings["words"] = replace(settings["words"], instances=3)
    candidate.write(release, models_of_it, settings, into)
    tried = bundle.of(into, "words_network", 1)
    assert tried.sealed and {*tried.models} == {*release.models}
    assert manifest.verify(tried.directory)
    assert "count: 3" in (tried.models["words"] / "configs" / "cpu.pbtxt").read_text()
    assert {*inside.shaped(tried, candidate.CONFIG_NAME).models} == {"words", "words_network"}


def test_what_breaks_the_objective_counts_on_neither_side() -> None:
    def rounds(*p99_ms: float, per_s: float) -> list[Level]:
        return [Level(4, per_s, 1.0, each, 1.0, 0) for each in p99_ms]

    quick, objective = rounds(5, 5, 5, 5, 5, 5, per_s=200), Objective(20)
    assert compared(rounds(5, 5, 5, 5, 5, 5, per_s=100), quick, objective).is_better
    assert not compared(quick, rounds(5, 5, 5, 30, 30, 30, per_s=900), objective).is_better, (
        "it breaks it in half of them"
    )
    broken = compared(rounds(30, 30, 30, 30, 30, 30, per_s=900), quick, objective)
    assert broken.throughput is None and broken.held == 6 and broken.is_better
    some = compared(rounds(30, 5, 5, 5, 5, 5, per_s=100), quick, objective)
    assert some.throughput is not None and some.throughput.median == 2.0, "that round is left out"


def test_where_nothing_beats_todays_settings_the_evidence_says_so(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    small_releases.write(root)
    release = released.asked(root, "words")
    models = search.configured(release)
    today = {name: each.settings for name, each in models.items()}
    of = Search(release, "words", Space(models), Objective(20.0, None), 1.0, tmp_path)
    found = Found(today, 900.0, (), 900.0, (), 20, 0, "its time was over")
    itself = change.write(of, found, {}, [], tmp_path / "itself")
    assert itself.verdict == ["✓ Nothing beats today's settings: 900 requests/s within the objective"]
    assert itself.verdict[0] in itself.evidence.read_text()
    beside = {"throughput": {"median": 0.943, "low": 0.887, "high": 1.007}}
    beaten = change.write(of, found, beside, [], tmp_path / "beaten")
    assert "for sure: the best, in shares of them: 0.943 (0.887 … 1.007)" in beaten.evidence.read_text()
    assert json.loads((tmp_path / "beaten" / "evidence.json").read_text())["compared"] == beside
    assert itself.patch is None and beaten.patch is None and not [*tmp_path.glob("*/settings.patch")]


def tune(workspace: Workspace, *arguments: str) -> "subprocess.CompletedProcess[str]":
    where = ("--repository", str(workspace.repository))
    return workspace.run_here("benchmarks", "tune", "words", "--seconds", "0.3", *where, *arguments)


@pytest.fixture
def badly_set(workspace: Workspace) -> Workspace:
    """An ensemble whose first step takes 5 ms, without any CPU, in one instance."""
    shutil.rmtree(workspace.repository, ignore_errors=True)
    small_releases.write(workspace.repository)
    source = workspace.repository / "words_counts" / "1" / "model.py"
    source.write_text(source.read_text().replace("values =", "time.sleep(0.005)\n        values =", 1))
    for path in workspace.repository.glob("words_*/config.pbtxt"):
        settings = of_text(path.parent.name, path, path.read_text())
        path.write_text(settings.changed(replace(settings.settings, instances=1)))
    return workspace


@pytest.mark.slow
@pytest.mark.heavy
def test_a_search_that_was_stopped_goes_on(badly_set: Workspace) -> None:
    first = tune(badly_set, "--p99-ms", "5000", "--budget", "1")
    assert first.returncode == 1
    assert "1 trials" in first.stdout and "goes on where it was" in first.stdout
    second = tune(badly_set, "--p99-ms", "5000", "--budget", "8")
    [trials] = [line for line in second.stdout.splitlines() if " trials, " in line]
    assert int(trials.split()[0]) > 1, "the first one is not tried again"
    assert "\n  0  " not in second.stdout
    where = ("--repository", str(badly_set.repository))
    nothing = badly_set.run_here("benchmarks", "tune", "nobody", "--p99-ms", "1", *where)
    assert nothing.returncode == 1 and "belongs to no release" in nothing.stderr


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_better_settings_are_found_and_written_as_a_patch_with_evidence(badly_set: Workspace) -> None:
    """More instances of the step that sleeps: nothing else can bring much."""
    done = tune(badly_set, "--p99-ms", "5000", "--budget", "150", "--rounds", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "words_counts: instances 1 -> " in done.stdout, done.stdout
    [patch] = (badly_set.root / "artifacts" / "tuning" / "words").glob("*/settings.patch")
    evidence = json.loads(patch.with_name("evidence.json").read_text())
    assert evidence["compared"]["throughput"]["low"] > 1.2
    assert "instances 1 -> " in patch.with_name("evidence.md").read_text()
    config = badly_set.repository / "words_counts" / "config.pbtxt"
    subprocess.run(["patch", "--quiet", str(config)], input=_of(patch.read_text(), config), text=True, check=True)
    model_config.read(config)
    assert of_text("", config, config.read_text()).settings.instances in range(2, 2 * cores() + 2)
    assert not list((badly_set.root / "artifacts" / "tuning" / "words").glob("compared-*")), "nothing is left behind"


def _of(patch: str, config: Path) -> str:
    """The part of a patch that is of one file."""
    parts = patch.split("--- ")
    return "".join(f"--- {part}" for part in parts if part.startswith(f"a/{config}"))
