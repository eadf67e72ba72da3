"""What is killed without a word: the fit itself, again and again, and the MLflow server that it reports to."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from contracts import layout
from tests.conftest import FAMILY, Workspace, free_ports, wait_for
from tests.training.lightning.conftest import same

pytestmark = [pytest.mark.heavy, pytest.mark.slow]
FIT = (
    "training", "fit", FAMILY, "--preset", "demo", "--trainer.max_epochs", "6", "--trainer.limit_train_batches", "12",
    "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--early_stopping.patience", "99",
    "--trainer.enable_progress_bar", "false",
)  # fmt: skip
KILLS = 4


def runs_of(store: str) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    [experiment] = [found for found in client.search_experiments() if found.name == FAMILY]
    return client, list(client.search_runs([experiment.experiment_id]))


def points(client: Any, run: Any, figure: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, figure))


@contextmanager
def started(workspace: Workspace, *more: str | Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        workspace.command(*FIT, *more), cwd=layout.ROOT, env=workspace.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def ended_or_saved(process: "subprocess.Popen[str]", folder: Path, before: dict[Path, int]) -> bool:
    saved = {path: path.stat().st_mtime_ns for path in folder.glob("*/last.ckpt")}
    return process.poll() is not None or saved != before


def test_a_fit_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    chance, place, other = random.Random(0), Workspace(tmp_path / "killed"), Workspace(tmp_path / "whole")
    other.must(*FIT)
    [whole] = (other.root / "artifacts" / "checkpoints" / FAMILY).glob("*/last.ckpt")

    folder = place.root / "artifacts" / "checkpoints" / FAMILY
    resumed: list[str | Path] = []
    for _ in range(KILLS):
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*/last.ckpt")}
        with started(place, *resumed) as process:
            wait_for(partial(ended_or_saved, process, folder, before), timeout_s=550)
            time.sleep(chance.random())  # in the middle of a step, a validation, or a file that is written
            process.kill()
        [last] = folder.glob("*/last.ckpt")
        resumed = ["--ckpt_path", last]
    place.must(*FIT, *resumed)
    [last] = folder.glob("*/last.ckpt")
    assert same(last, whole)

    (client, [run]), (undisturbed, [expected]) = (
        runs_of(f"sqlite:///{where.root / 'artifacts' / 'mlflow.db'}") for where in (place, other)
    )
    assert run.info.status == "FINISHED"
    for figure in ("val_accuracy", "train_loss", "lr-SGD"):
        assert points(client, run, figure) == points(undisturbed, expected, figure), figure


@dataclass
class Server:
    """MLflow's own tracking server, that can be killed and started again."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = ("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1")
        files = ("--artifacts-destination", str(self.folder / "files"), "--host", "127.0.0.1", "--port", str(self.port))
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *files], cwd=self.folder, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            with urlopen(f"{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        for process in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
            process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path, free_ports()[0])
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill()


def test_a_server_that_is_killed_in_the_middle_is_told_all_of_it_later(
    server: Server, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    folder = workspace.root / "artifacts" / "checkpoints" / FAMILY
    with started(workspace) as process:
        wait_for(lambda: list(folder.glob("*/last.ckpt")), timeout_s=550)
        server.kill()
        said, _ = process.communicate(timeout=550)
    assert process.returncode == 0, said
    assert said.count("MLflow did not take what it was told") == 1
    [run_folder] = folder.iterdir()
    assert f"python -m training send {run_folder}" in said
    refused = workspace.run("training", "send", run_folder)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)

    server.start()
    assert "Told MLflow" in workspace.must("training", "send", run_folder)
    client, [run] = runs_of(server.address)
    assert run.info.status == "FINISHED"
    assert len(points(client, run, "val_accuracy")) == 6
    assert {file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")} == {
        "checkpoint/best.ckpt", "checkpoint/config.yaml",
    }  # fmt: skip
