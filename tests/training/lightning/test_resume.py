"""A fit that was stopped goes on as if it had not been: the same weights, the same run, every figure once."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.lightning.conftest import Fits, raised_in_step, same
from training.errors import TrainingError

pytestmark = pytest.mark.heavy
EPOCHS = ("--trainer.max_epochs", "4")


@pytest.fixture
def augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the numbers of every batch disturbed at random, as images are: before the step that learns from it."""
    import torch

    from training.families.flights.data import DataModule

    def disturbed(self: Any, batch: Any, dataloader_idx: int) -> Any:
        categories, numbers, late = batch
        return categories, numbers + 0.1 * torch.randn_like(numbers) if self.trainer.training else numbers, late

    monkeypatch.setattr(DataModule, "on_after_batch_transfer", disturbed)


@pytest.fixture
def stopped(fits: Fits, augmented: None) -> Path:
    """The folder of a run that Ctrl-C stopped in the middle of its third epoch."""
    with raised_in_step(29, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        fits.fit(*EPOCHS, "--run.name", "tried", "--run.tags", "{team: vision}", "--run.note", "why")
    return fits.newest()


def test_the_seed_decides_the_weights(fits: Fits) -> None:
    seeds = ((), (), ("--seed_everything", "1"))
    one, same_seed, other = (fits.fit("--trainer.max_epochs", "1", *seed) for seed in seeds)
    assert same(one / "best.ckpt", same_seed / "best.ckpt")
    assert not same(one / "best.ckpt", other / "best.ckpt")


def test_a_resumed_fit_ends_with_the_weights_and_figures_of_one_that_was_not_stopped(
    fits: Fits, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [run] = fits.runs()
    assert run.info.status == "KILLED", "it was stopped, it did not fail"
    assert fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt") == stopped
    [resumed] = fits.runs()
    assert resumed.info.run_id == run.info.run_id, "the same run of MLflow's"
    assert resumed.info.status == "FINISHED"
    assert resumed.info.run_name == "tried"
    assert (resumed.data.tags["team"], resumed.data.tags["mlflow.note.content"]) == ("vision", "why")

    whole = fits.fit(*EPOCHS)
    undisturbed, _ = fits.runs()
    assert same(stopped / "last.ckpt", whole / "last.ckpt")
    assert same(stopped / "best.ckpt", whole / "best.ckpt")
    for figure in ("val_auc", "train_loss", "lr-AdamW", "test_auc"):
        assert fits.history(resumed, figure) == fits.history(undisturbed, figure), figure
    assert len(fits.history(resumed, "val_auc")) == 4, "a point an epoch, none twice"


def test_a_run_that_is_done_is_left_as_it_is_by_a_resume_that_is_refused(fits: Fits) -> None:
    done = fits.fit("--trainer.max_epochs", "1")
    [before] = fits.runs()
    with pytest.raises(TrainingError, match="was planned for 12 steps, and 24 are asked for"):
        fits.fit("--trainer.max_epochs", "2", "--ckpt_path", done / "last.ckpt")
    [after] = fits.runs()
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)


def test_a_run_that_is_done_has_nothing_left_to_train(fits: Fits) -> None:
    """Not where its last step was an epoch's last, either, as by Lightning #19617."""
    done = fits.fit("--trainer.max_steps", "12")
    before = [run.info.end_time for run in fits.runs()], (done / "last.ckpt").read_bytes()
    fits.fit("--trainer.max_steps", "12", "--ckpt_path", done / "last.ckpt")
    [run] = fits.runs()
    assert (run.info.status, len(fits.history(run, "val_auc"))) == ("FINISHED", 1)
    assert ([run.info.end_time], (done / "last.ckpt").read_bytes()) == before


def test_what_a_resume_changes_is_told_by_a_tag_as_a_parameter_never_changes(fits: Fits, stopped: Path) -> None:
    fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt", "--data.batch_size", "256")
    [run] = fits.runs()
    assert run.data.params["batch_size"] == "128"
    assert run.data.tags["resumed_with.batch_size"] == "256"


def test_a_resume_never_takes_another_model_than_its_flags_say(fits: Fits, stopped: Path) -> None:
    with pytest.raises(TrainingError, match=r"--model.lr 0.5 is not what the checkpoint was trained with, 0.003"):
        fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt", "--model.lr", "0.5")
    fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt", "--model.lr=0.003")


def test_the_patience_of_a_resumed_fit_is_what_its_command_says(fits: Fits, stopped: Path) -> None:
    import torch

    fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt", "--early_stopping.patience", "99")
    [state] = [
        state for key, state in torch.load(stopped / "last.ckpt", weights_only=True)["callbacks"].items()
        if key.startswith("EarlyStopping")
    ]  # fmt: skip
    assert state["patience"] == 99
    assert state["best_score"] > 0.7, "what it has seen is kept"


def test_a_run_that_is_not_in_mlflow_any_more_goes_on_in_a_new_one(
    fits: Fits, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [run] = fits.runs()
    fits.client.delete_run(run.info.run_id)
    fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt")
    [other] = fits.runs()
    assert other.info.run_id != run.info.run_id
    assert f"{run.info.run_id}, is not there any more" in capsys.readouterr().err


def test_two_fits_of_one_run_at_a_time_are_refused(fits: Fits, stopped: Path) -> None:
    from training.runs.folder import held

    before = (stopped / "last.ckpt").stat().st_mtime_ns
    with held("flights", stopped), pytest.raises(TrainingError, match="another fit is writing into"):
        fits.fit(*EPOCHS, "--ckpt_path", stopped / "last.ckpt")
    assert (stopped / "last.ckpt").stat().st_mtime_ns == before
