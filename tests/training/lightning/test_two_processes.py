"""Two processes train as one does: the same steps, figures of all samples, one run, one checkpoint, one last line."""

import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts import layout
from tests.conftest import FAMILY, Workspace, wait_for

pytestmark = [pytest.mark.heavy, pytest.mark.slow]
QUIET = ("--trainer.enable_progress_bar", "false")
SHORT = ("--preset", "demo", "--trainer.limit_train_batches", "4", "--trainer.max_epochs", "1", *QUIET)
TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2")
FITS = {
    "fashion": (
        "--preset", "demo", "--trainer.limit_train_batches", "40", "--trainer.max_epochs", "2",
        "--data.augment", "false", "--trainer.sync_batchnorm", "true",  # else each process has its own chance
    ),
    "minilm": (
        "--model.layers", "2", "--model.wider", "64", "--model.pretrained", "false", "--model.dropout", "0",
        "--model.lr", "0.001", "--data.pairs", "512", "--data.batch_size", "32", "--trainer.max_epochs", "2",
    ),
    "flights": ("--data.rows", "1000", "--data.batch_size", "256", "--trainer.max_epochs", "2"),
}  # fmt: skip


def run_of(workspace: Workspace, family: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.root / 'artifacts' / 'mlflow.db'}")
    [experiment] = [found for found in client.search_experiments() if found.name == family]
    [run] = client.search_runs([experiment.experiment_id])
    return run


def test_two_processes_leave_what_one_does(workspace: Workspace) -> None:
    done = workspace.run("training", "fit", FAMILY, *SHORT, *TWO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"Trained {FAMILY}") == 1
    [best] = (workspace.root / "artifacts" / "checkpoints" / FAMILY).glob("*/best.ckpt")
    assert done.stdout.strip().splitlines()[-2:] == [
        f"Checkpoint: {best}", f"Next: python -m export {FAMILY}",
    ]  # fmt: skip
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "config.yaml", "last.ckpt"]
    assert len(list(best.parent.parent.iterdir())) == 1, "the other process wrote a folder of its own"
    run = run_of(workspace, FAMILY)
    assert run.info.status == "FINISHED"

    alone = workspace.must("training", "test", FAMILY, "--preset", "demo", "--ckpt_path", best)
    figures = {name: float(value) for name, value in re.findall(r"(test_\w+)\W+([\d.]+)", alone)}
    assert run.data.metrics["test_accuracy"] == pytest.approx(figures["test_accuracy"], abs=1e-6), "of all samples"
    assert run.data.metrics["test_loss"] == pytest.approx(figures["test_loss"], abs=1e-5)


@pytest.mark.parametrize("family", FITS)
def test_the_loss_of_two_processes_is_that_of_one(workspace: Workspace, tmp_path: Path, family: str) -> None:
    figures = []
    for name, devices in (("one", ()), ("two", TWO)):
        place = Workspace(tmp_path / name)
        place.must("training", "fit", family, *FITS[family], *QUIET, *devices)
        figures.append(run_of(place, family).data.metrics)
    one, two = figures
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.01)
    [metric] = [name for name in one if name.startswith("val_") and name != "val_loss"]
    assert two[metric] == pytest.approx(one[metric], abs=0.02)
    assert two["epoch"] == one["epoch"]


def processes(workspace: Workspace) -> list[psutil.Process]:
    """Those of a fit in this workspace."""
    here = ("ARTIFACTS_DIR", workspace.environment["ARTIFACTS_DIR"])
    found = psutil.process_iter(["cmdline", "environ"])
    return [
        process
        for process in found
        if {"training", "training.__main__"} & {*(process.info["cmdline"] or ())}  # Lightning starts the second
        and here in (process.info["environ"] or {}).items()
    ]


def test_processes_that_cannot_meet_end_with_the_reason(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for name, value in zip(("MASTER_ADDR", "MASTER_PORT"), taken.getsockname(), strict=True):
            monkeypatch.setenv(name, str(value))
        done = workspace.run("training", "fit", FAMILY, *SHORT, *TWO)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: the processes of this fit cannot reach each other" in done.stderr
    wait_for(lambda: not processes(workspace), timeout_s=100)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "the first is killed", "the second is killed"])
def test_none_of_two_processes_stays_behind_and_the_run_goes_on(workspace: Workspace, how: str) -> None:
    fit = ("training", "fit", FAMILY, "--preset", "demo", "--trainer.max_epochs", "6", *QUIET, *TWO,
           "--trainer.limit_train_batches", "40", "--trainer.limit_val_batches", "1",
           "--trainer.limit_test_batches", "1")  # fmt: skip
    runs = workspace.root / "artifacts" / "checkpoints" / FAMILY
    with subprocess.Popen(
        workspace.command(*fit), cwd=layout.ROOT, env=workspace.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        wait_for(lambda: list(runs.glob("*/last.ckpt")), timeout_s=550)
        both = processes(workspace)
        assert len(both) == 2
        [second] = [other for other in both if other.pid != process.pid]
        if how == "Ctrl-C":  # a terminal tells both of it
            process.send_signal(signal.SIGINT)
            second.send_signal(signal.SIGINT)
        elif how == "SIGTERM":  # an orchestrator tells the first
            process.send_signal(signal.SIGTERM)
        else:
            (process if how == "the first is killed" else second).kill()
        said, _ = process.communicate(timeout=500)
    wait_for(lambda: not processes(workspace), timeout_s=300)
    [last] = runs.glob("*/last.ckpt")
    if how == "Ctrl-C":
        assert process.returncode == 130, said
        assert said.count("Go on with the same command") == 1
    elif how == "SIGTERM":
        assert process.returncode == 143, said
    workspace.must(*fit, "--ckpt_path", last)
    assert run_of(workspace, FAMILY).info.status == "FINISHED"
