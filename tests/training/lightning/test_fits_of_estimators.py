"""A fit of another library's model is a run as any other: MLflow may be gone, and what cannot be done is said."""

from typing import Any

import pytest

from tests.training.lightning.conftest import FAMILY, Fits
from training.errors import TrainingError
from training.runs import outbox

pytestmark = pytest.mark.heavy


def fit(*flags: str) -> None:
    from training.lightning import cli

    cli.run("fit", FAMILY, "logistic", list(flags))


def test_a_mlflow_that_goes_before_the_end_costs_no_model(
    fits: Fits, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from training.families.flights.models.linear import Logistic

    def gone(*_: Any, **__: Any) -> None:
        raise MlflowException("API request to http://mlflow:5000 failed: connection refused")

    fitted = Logistic.fit

    def counted(self: Any, *given: Any) -> None:
        fitted(self, *given)
        for name in ("log_batch", "set_terminated", "get_run", "update_run"):
            patch.setattr(MlflowClient, name, gone)

    with monkeypatch.context() as patch:
        patch.setattr(Logistic, "fit", counted)
        fit()
    folder = fits.newest()
    said = capsys.readouterr()
    assert "MLflow did not take what it was told" in said.err and f"python -m training send {folder}" in said.out
    assert (folder / "best.ckpt").is_file()
    assert outbox.send(folder) > 0
    [run] = fits.runs()
    assert run.info.status == "FINISHED" and {"val_auc", "test_auc"} <= set(run.data.metrics)
    assert {file.path for file in fits.client.list_artifacts(run.info.run_id, "checkpoint")} == {
        "checkpoint/best.ckpt", "checkpoint/config.yaml",
    }  # fmt: skip


def test_a_mlflow_that_is_not_there_is_said_before_anything_is_trained(
    fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrainingError, match=r"MLflow does not answer at http://127\.0\.0\.1:9") as refused:
        fit()
    assert "secret" not in str(refused.value)
    assert not (fits.artifacts / "checkpoints" / FAMILY).exists()


@pytest.mark.parametrize("preset", [None, "logistic"])
def test_an_experiment_that_was_deleted_is_said_with_what_restores_it(fits: Fits, preset: str | None) -> None:
    from training.lightning import cli

    deleted = fits.client.create_experiment(FAMILY)
    fits.client.delete_experiment(deleted)
    with pytest.raises(TrainingError, match=f"the experiment {FAMILY} was deleted in MLflow") as refused:
        cli.run("fit", FAMILY, preset, [])
    restore = f"mlflow experiments restore --experiment-id {deleted}"
    assert f"MLFLOW_TRACKING_URI=sqlite:///{fits.artifacts / 'mlflow.db'} {restore}" in str(refused.value)


def test_a_checkpoint_of_one_is_nothing_to_go_on_from(fits: Fits) -> None:
    fit()
    with pytest.raises(TrainingError, match="a fit of logistic cannot be gone on with"):
        fit("--ckpt_path", str(fits.newest() / "best.ckpt"))
    assert len(fits.runs()) == 1
