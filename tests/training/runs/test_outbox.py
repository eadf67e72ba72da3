"""What MLflow is told arrives, in order and once, however long MLflow is away meanwhile."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace
from training.errors import TrainingError
from training.runs import outbox
from training.runs.labels import Labels
from training.runs.outbox import Outbox

NOBODY = "http://127.0.0.1:9"  # the port of "discard", on which nobody answers


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store of its own."""
    from mlflow import MlflowClient

    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    shutil.copy(empty_store, tmp_path)
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")):
        monkeypatch.setenv(name, value)
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def gone() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(NOBODY)


def test_what_mlflow_misses_is_kept_and_sent_in_order(store: Any, tmp_path: Path) -> None:
    experiment = store.create_experiment("f", artifact_location=(tmp_path / "mlflow").as_uri())
    run_id, folder = store.create_run(experiment).info.run_id, tmp_path / "run"
    folder.mkdir()
    (folder / "best.ckpt").write_text("weights")
    said: list[str] = []

    away = Outbox(gone(), run_id, folder, said.append)
    for step in range(3):
        away.metrics({"loss": 1.0 / (step + 1), "odd": float("nan")}, step)
    away.parameters({"lr": 0.1})
    away.tags({"team": "vision"})
    away.file(folder / "best.ckpt", "checkpoint")
    away.status("FINISHED")
    assert len(said) == 1, "once, not for every figure"
    assert str(folder / outbox.FILE) in said[0]
    assert len((folder / outbox.FILE).read_text().splitlines()) == 1 + 7

    assert outbox.send(folder) == 7
    run = store.get_run(run_id)
    assert [(point.step, point.value) for point in store.get_metric_history(run_id, "loss")] == [
        (0, 1.0), (1, 0.5), (2, 1 / 3)
    ]  # fmt: skip
    assert (run.data.params, run.data.tags["team"], run.info.status) == ({"lr": "0.1"}, "vision", "FINISHED")
    assert [file.path for file in store.list_artifacts(run_id, "checkpoint")] == ["checkpoint/best.ckpt"]
    assert not (folder / outbox.FILE).exists()
    assert outbox.send(folder) == 0


def test_a_fit_that_goes_on_sends_first_what_the_one_before_it_could_not(store: Any, tmp_path: Path) -> None:
    run_id = store.create_run("0").info.run_id
    Outbox(gone(), run_id, tmp_path, lambda line: None).metrics({"loss": 1.0}, 0)
    said: list[str] = []
    Outbox(store, run_id, tmp_path, said.append).metrics({"loss": 0.5}, 1)
    assert [point.value for point in store.get_metric_history(run_id, "loss")] == [1.0, 0.5]
    assert not (tmp_path / outbox.FILE).exists()
    assert "answers again" in said[0]


def test_a_mlflow_that_is_away_is_not_asked_at_every_step(store: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    class Away:
        def log_batch(self, *_: Any, **__: Any) -> None:
            asked.append("once more")
            raise ConnectionError("gone")

    away = Outbox(Away(), "run", tmp_path, lambda line: None)  # type: ignore[arg-type]
    for step in range(50):
        away.metrics({"loss": 1.0}, step)
    assert (len(asked), away.waiting) == (1, 50)


def test_what_was_sent_before_mlflow_went_again_is_not_sent_twice(store: Any, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run_id = store.create_run("0").info.run_id
    away = Outbox(gone(), run_id, tmp_path, lambda line: None)
    away.metrics({"loss": 1.0}, 0)
    away.status("FINISHED")
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(MlflowClient, "set_terminated")
        with pytest.raises(TrainingError, match="did not take"):
            outbox.send(tmp_path)
    assert outbox.send(tmp_path) == 1
    assert len(store.get_metric_history(run_id, "loss")) == 1


def test_a_line_that_a_killed_process_left_half_written_costs_no_other(store: Any, tmp_path: Path) -> None:
    run_id = store.create_run("0").info.run_id
    away = Outbox(gone(), run_id, tmp_path, lambda line: None)
    away.metrics({"loss": 1.0}, 0)
    away.metrics({"loss": 0.5}, 1)
    with (tmp_path / outbox.FILE).open("a") as file:
        file.write(json.dumps({"what": "metrics"})[:9])
    assert outbox.send(tmp_path) == 2
    assert len(store.get_metric_history(run_id, "loss")) == 2


def test_sending_to_a_mlflow_that_is_still_away_keeps_all_and_says_why(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Outbox(gone(), "0123", tmp_path, lambda line: None).metrics({"loss": 1.0}, 0)
    before = (tmp_path / outbox.FILE).read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    with pytest.raises(TrainingError, match="did not take what run 0123 has to tell"):
        outbox.send(tmp_path)
    assert (tmp_path / outbox.FILE).read_text() == before


def test_the_command_says_how_much_it_told(workspace: Workspace) -> None:
    done = workspace.run("training", "send", workspace.root)
    assert (done.returncode, done.stdout) == (0, "There is nothing that waits\n")


@pytest.mark.parametrize("name", ["recall@5", "../up", "/root", "a//b", "é", "", ".", "n" * 300])
def test_a_name_that_mlflow_does_not_admit_holds_nothing_up(store: Any, tmp_path: Path, name: str) -> None:
    """It refuses such a thing whenever it is told, and what comes behind would wait for ever."""
    run_id = store.create_run(store.create_experiment("f")).info.run_id
    told = Outbox(store, run_id, tmp_path, pytest.fail)
    told.metrics({name: 0.5}, 0)
    told.parameters({name: 1})
    told.tags({name: "x"})
    told.status("FINISHED")
    run, admitted = store.get_run(run_id), outbox.admitted(name)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {admitted: 0.5}, {admitted: "1"})
    assert run.data.tags[admitted] == "x"


def test_names_that_it_admits_are_as_they_are() -> None:
    for name in ("val_auc", "lr-AdamW/pg1", "a.b: c", "mlflow.runName"):
        assert outbox.admitted(name) == name
    with pytest.raises(TrainingError, match="MLflow admits no tag called 'to:do!'"):
        Labels(tags={"to:do!": "x"}).as_tags()
