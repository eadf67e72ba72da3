"""Training leaves what the next stage and the next engineer need."""

import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from contracts import layout
from tests.conftest import FAMILY, Workspace, wait_for


def test_mlflow_has_parameters_metrics_lineage_and_the_checkpoint(shared: Workspace, checkpoint: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{shared.root / 'artifacts' / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name == FAMILY]
    [run] = client.search_runs([experiment.experiment_id], "params.lr = '0.1'")  # releases are runs as well
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["widths"] == "[16, 32, 64]"
    assert len(client.get_metric_history(run.info.run_id, "val_accuracy")) == 2, "one figure an epoch"
    assert 0.5 < run.data.metrics["test_accuracy"] < 1
    assert run.data.tags["family"] == FAMILY
    assert len(run.data.tags["git_commit"]) == 40
    assert len(run.data.tags["data_fingerprint"]) == 64
    artifacts = {a.path for a in client.list_artifacts(run.info.run_id, "checkpoint")}
    assert artifacts == {"checkpoint/best.ckpt", "checkpoint/config.yaml"}


def test_the_resolved_configuration_lies_beside_the_checkpoint(checkpoint: Path) -> None:
    config = yaml.safe_load((checkpoint.parent / "config.yaml").read_text())
    assert config["model"]["widths"] == [16, 32, 64]
    assert config["trainer"]["max_epochs"] == 2
    assert config["seed_everything"] == 0


@pytest.mark.heavy
def test_ctrl_c_keeps_the_last_checkpoint_and_a_resumed_run_goes_on_from_it(workspace: Workspace) -> None:
    import torch

    fit = [
        "training", "fit", FAMILY, "--preset", "demo", "--trainer.max_epochs", "12",
        "--early_stopping.patience", "99", "--trainer.limit_train_batches", "4", "--trainer.limit_val_batches", "1",
        "--trainer.limit_test_batches", "1",
    ]  # fmt: skip
    runs = workspace.root / "artifacts" / "checkpoints" / FAMILY
    with subprocess.Popen(
        workspace.command(*fit), cwd=layout.ROOT, env=workspace.environment, stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for(lambda: list(runs.glob("*/last.ckpt")))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    [last] = runs.glob("*/last.ckpt")
    assert f"--ckpt_path {last}" in said, "how to go on is said"
    stopped = torch.load(last, weights_only=True)
    assert stopped["epoch"] < 11, "it was stopped too late to test anything"

    workspace.must(*fit, "--ckpt_path", last)
    assert list(runs.glob("*/last.ckpt")) == [last], "it is the same run"
    after = torch.load(last, weights_only=True)
    assert (after["epoch"], after["global_step"]) == (11, 48), "no epoch was repeated or left out"


def test_a_checkpoint_is_judged_by_test_and_validate(shared: Workspace, checkpoint: Path) -> None:
    for split, batches in (("test", "limit_test_batches"), ("validate", "limit_val_batches")):
        few = (f"--trainer.{batches}", "4")
        out = shared.must("training", split, FAMILY, "--preset", "demo", "--ckpt_path", checkpoint, *few)
        assert f"{split.removesuffix('idate')}_accuracy" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "test needs a checkpoint"),
        (["--ckpt_path", "/nope.ckpt"], "/nope.ckpt does not exist"),
        (["--ckpt_path", "README.md"], "README.md is damaged or is not a checkpoint"),
    ],
)
def test_without_a_checkpoint_there_is_nothing_to_judge(workspace: Workspace, options: list[str], message: str) -> None:
    done = workspace.run("training", "test", FAMILY, *options)
    assert done.returncode == 1
    assert f"error: {message}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_preset_lists_those_there_are(workspace: Workspace) -> None:
    done = workspace.run_here("training", "fit", FAMILY, "--preset", "nope")
    assert done.returncode == 1
    assert f"{FAMILY} has no preset 'nope'" in done.stderr
    assert "presets: demo" in done.stderr
