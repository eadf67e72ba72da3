"""What fails around a fit costs no training: MLflow, the disk, a step; and what was kept is said."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.training.lightning.conftest import Fits, raised_in_step, same
from training.errors import TrainingError
from training.runs import outbox

pytestmark = pytest.mark.heavy
EPOCHS = ("--trainer.max_epochs", "3")


@contextmanager
def away_in_step(number: int) -> Iterator[None]:
    """Have MLflow answer no more from a step on."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from training.families.flights.model import Module

    steps, step = [0], Module.training_step

    def gone(*_: Any, **__: Any) -> None:
        raise MlflowException("API request to http://mlflow:5000 failed: connection refused")

    with pytest.MonkeyPatch.context() as patch:

        def counted(self: Any, batch: Any, batch_idx: int) -> Any:
            steps[0] += 1
            if steps[0] == number:
                for name in ("log_batch", "set_terminated", "get_run", "update_run"):
                    patch.setattr(MlflowClient, name, gone)
            return step(self, batch, batch_idx)

        patch.setattr(Module, "training_step", counted)
        yield


def test_a_mlflow_that_goes_in_the_middle_costs_nothing(fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    """The same with a real server that is killed: test_mlflow_server.py."""
    with away_in_step(14):
        folder = fits.fit(*EPOCHS)
    said = capsys.readouterr()
    assert said.err.count("MLflow did not take what it was told") == 1
    assert f"python -m training send {folder}" in said.out
    [run] = fits.runs()
    assert (len(fits.history(run, "val_auc")), run.info.status) == (1, "RUNNING")

    assert outbox.send(folder) > 0
    whole = fits.fit(*EPOCHS)
    undisturbed, [run] = fits.runs()[0], [found for found in fits.runs() if found.info.run_id == run.info.run_id]
    assert same(folder / "best.ckpt", whole / "best.ckpt")
    assert run.info.status == "FINISHED"
    for figure in ("val_auc", "train_loss", "test_auc"):
        assert fits.history(run, figure) == fits.history(undisturbed, figure), figure
    assert {file.path for file in fits.client.list_artifacts(run.info.run_id, "checkpoint")} == {
        "checkpoint/best.ckpt", "checkpoint/config.yaml",
    }  # fmt: skip


def test_a_mlflow_that_is_not_there_is_said_before_anything_is_trained(
    fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrainingError, match=r"MLflow does not answer at http://127\.0\.0\.1:9") as refused:
        fits.fit(*EPOCHS)
    assert "secret" not in str(refused.value)
    assert not list((fits.artifacts / "checkpoints").rglob("*.ckpt"))


def test_a_full_disk_ends_the_fit_and_leaves_the_last_state_whole(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel refuses files as large as a checkpoint, as a full disk would, from the second epoch on."""
    wide = (*EPOCHS, "--model.widths", "[1200, 1200]")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept: dict[str, bytes] = {}

    from training.families.flights.model import Module

    steps, step = [0], Module.training_step

    def counted(self: Any, batch: Any, batch_idx: int) -> Any:
        steps[0] += 1
        if steps[0] == 14:
            kept["last"] = next((fits.artifacts / "checkpoints").rglob("last.ckpt")).read_bytes()
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, before[1]))
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Module, "training_step", counted)
        try:
            with pytest.raises(OSError, match="File too large"):
                fits.fit(*wide)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    last = fits.newest() / "last.ckpt"
    assert last.read_bytes() == kept["last"]
    assert f"Go on with the same command and --ckpt_path {last}" in capsys.readouterr().out
    [run] = fits.runs()
    assert run.info.status == "FAILED"
    fits.fit(*wide, "--ckpt_path", last)
    assert [path.name for path in sorted(last.parent.iterdir())] == ["best.ckpt", "config.yaml", "last.ckpt"]


def test_a_step_that_fails_says_how_to_go_on_and_keeps_its_traceback(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    with raised_in_step(14, ZeroDivisionError("a bug")), pytest.raises(ZeroDivisionError, match="a bug"):
        fits.fit(*EPOCHS)
    assert f"It failed. Go on with the same command and --ckpt_path {fits.newest() / 'last.ckpt'}" in (
        capsys.readouterr().out
    )
    [run] = fits.runs()
    assert run.info.status == "FAILED"


def test_what_is_stopped_before_anything_is_kept_has_nothing_to_go_on_from(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    with raised_in_step(2, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        fits.fit(*EPOCHS)
    assert "Stopped before the first epoch was done: there is nothing to go on from" in capsys.readouterr().out
