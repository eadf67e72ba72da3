"""What the trainer's flags ask for is what is done, or it is refused with the reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.lightning.conftest import Fits, same, weights
from training.errors import TrainingError
from training.families import FAMILIES

SMALL_MODULES = {"minilm": {"layers": 1, "wider": 8, "pretrained": False}}
EPOCH = ("--trainer.max_epochs", "1")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_of_any_number_of_steps_has_a_learning_rate_in_each(family: str, steps: int) -> None:
    """Of four steps or fewer, one of fashion's was a division by zero."""
    from training import families

    module = families.load(family).module(**SMALL_MODULES.get(family, {}))
    trainer = SimpleNamespace(estimated_stepping_batches=steps)
    module.trainer = trainer
    made: Any = module.configure_optimizers()
    rates = []
    for _ in range(steps):
        made["optimizer"].step()
        rates += [group["lr"] for group in made["optimizer"].param_groups]
        made["lr_scheduler"]["scheduler"].step()
    assert all(0 <= rate <= module.hparams["lr"] * 1.001 for rate in rates)
    assert max(rates) > 0


@pytest.mark.heavy
def test_the_last_of_four_steps_is_validated_in_the_middle_of_an_epoch(fits: Fits) -> None:
    import torch

    folder = fits.fit("--trainer.max_steps", "4")
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == 4
    [run] = fits.runs()
    assert len(fits.history(run, "val_auc")) == 1
    assert same(folder / "best.ckpt", folder / "last.ckpt")


@pytest.mark.heavy
def test_a_fit_that_validates_nothing_keeps_its_last_state_and_says_so(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fits.fit(*EPOCH, "--trainer.limit_val_batches", "0")
    assert same(folder / "best.ckpt", folder / "last.ckpt")
    assert "the last state: nothing was validated" in capsys.readouterr().out


@pytest.mark.heavy
def test_a_run_to_try_everything_once_leaves_nothing(fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    from training.lightning import cli

    cli.run("fit", "flights", None, ["--data.batch_size", "128", "--trainer.fast_dev_run", "true"])
    assert not (fits.artifacts / "checkpoints" / "flights").exists()
    assert fits.runs() == []
    assert "nothing was kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--trainer.max_epochs", "0"), "--trainer.max_epochs 0 trains nothing"),
        (("--trainer.limit_train_batches", "0"), "--trainer.limit_train_batches 0 trains nothing"),
        (("--trainer.max_epochs", "-1"), "needs to know where the end is"),
        (
            ("--trainer.precision", "16-mixed", "--trainer.accelerator", "cpu"),
            "a CPU has no mixed precision of",
        ),
        (("--trainer.precision", "bf16-true"), "trains weights of 16 bits"),
        (("--trainer.strategy", "nothing"), "invalid strategy name"),
        (("--trainer.accumulate_grad_batches", "13"), "a step of 13 batches is more than an epoch's 12"),
        (("--trainer.strategy", "ddp_spawn"), "hands a fit to its processes in one piece"),
        (("--data.batch_size", "0"), "a batch of 0 samples is none"),
    ],
)
@pytest.mark.heavy
def test_what_cannot_be_done_is_refused(fits: Fits, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        fits.fit(*flags)


@pytest.mark.heavy
def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(fits: Fits) -> None:
    import torch

    whole, mixed = fits.fit(*EPOCH), fits.fit(*EPOCH, "--trainer.precision", "bf16-mixed")
    assert {tensor.dtype for tensor in weights(mixed / "best.ckpt").values()} == {torch.float32}
    assert not same(whole / "best.ckpt", mixed / "best.ckpt"), "it was computed as before"
    of_mixed, of_whole = fits.runs()
    [(_, mixed_loss)], [(_, loss)] = fits.history(of_mixed, "train_loss"), fits.history(of_whole, "train_loss")
    assert mixed_loss == pytest.approx(loss, rel=0.01)


@pytest.mark.heavy
def test_weights_that_are_no_numbers_any_more_are_no_model(fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match="flights did not learn: its weights are no finite numbers any more"):
        fits.fit("--trainer.max_epochs", "3", "--model.lr", "1e30")
    said = capsys.readouterr().out
    assert "Ended early: val_auc was no finite number" in said and "Next: " not in said
    assert [run.info.status for run in fits.runs()] == ["FAILED"]


@pytest.mark.heavy
def test_a_fit_that_is_ended_early_says_why(fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    fits.fit("--trainer.max_epochs", "9", "--early_stopping.patience", "2", "--early_stopping.min_delta", "0.9")
    assert "Ended early: val_auc was looked at 2 times and was no better" in capsys.readouterr().out


@pytest.mark.heavy
def test_gradients_of_two_batches_make_the_step_of_one_twice_as_large(fits: Fits) -> None:
    import torch

    exact = (*EPOCH, "--model.dropout", "0")
    large = fits.fit(*exact)
    small = fits.fit(*exact, "--data.batch_size", "64", "--trainer.accumulate_grad_batches", "2")
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (large, small)]
    assert [state["global_step"] for state in states] == [12, 12]
    for key, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(tensor, states[1]["state_dict"][key], rtol=1e-3, atol=1e-5, msg=key)


def test_the_last_step_of_an_epoch_is_the_mean_of_the_batches_that_it_has(tmp_path: Path) -> None:
    """Of five batches, two together: the third step has one, and Lightning would halve what it learns from it."""
    import pytorch_lightning as pl
    import torch

    from training.lightning.asked import WeighLastStep

    class Sum(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.weight * batch[0]  # whose gradient is the batch

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    module = Sum()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, callbacks=[WeighLastStep()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.tensor([1.0, 3.0, 5.0, 7.0, 100.0])))
    assert trainer.global_step == 6
    assert module.weight.item() == -2 * (2 + 6 + 100)


def test_variables_of_a_slurm_job_that_contradict_each_other_are_a_mistake_and_no_bug(
    fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.lightning import cli

    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "fit", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(TrainingError, match="--ntasks=2"):
        cli.run("fit", "flights", None, [])


@pytest.mark.heavy
def test_the_profilers_report_is_an_artifact_of_the_run(fits: Fits) -> None:
    folder = fits.fit("--trainer.max_steps", "2", "--trainer.profiler", "simple")
    [run] = fits.runs()
    found = {artifact.path for artifact in fits.client.list_artifacts(run.info.run_id, "profile")}
    assert {"profile/fit-profile.txt", "profile/test-profile.txt"} <= found
    report = Path(fits.client.download_artifacts(run.info.run_id, "profile/fit-profile.txt")).read_text()
    assert "run_training_batch" in report
    assert report == (folder / "profile" / "fit-profile.txt").read_text()
