"""Fits of a second: the perceptron of `flights` on a made-up year, by the command's own code in the test's process."""

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.training import made_up_flights

FAMILY = "flights"
SMALL = ("--data.batch_size", "128", "--trainer.enable_progress_bar", "false")  # twelve steps an epoch


@dataclass(frozen=True)
class Fits:
    """A place of its own for artifacts, in which fits run."""

    artifacts: Path

    def fit(self, *flags: str | Path) -> Path:
        """Run `python -m training fit flights` with these flags; the folder of the run that it wrote last."""
        from training.lightning import cli

        cli.run("fit", FAMILY, None, [*SMALL, *map(str, flags)])
        return self.newest()

    def newest(self) -> Path:
        folders = (self.artifacts / "checkpoints" / FAMILY).glob("*/config.yaml")
        return max(folders, key=lambda path: path.stat().st_mtime_ns).parent

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.artifacts / 'mlflow.db'}")

    def runs(self) -> list[Any]:
        """What MLflow has, the newest first."""
        client = self.client
        return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))

    def history(self, run: Any, figure: str) -> list[tuple[int, float]]:
        found = [(point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, figure)]
        return sorted(found)


def weights(checkpoint: Path) -> dict[str, Any]:
    import torch

    return dict(torch.load(checkpoint, weights_only=True)["state_dict"])


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints have the same weights, to the bit."""
    import torch

    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@contextmanager
def raised_in_step(number: int, error: BaseException) -> Iterator[None]:
    """Have something happen in a step of training, counted from the first."""
    from training.families.flights.model import Module

    steps, step = itertools.count(1), Module.training_step

    def counted(self: Any, batch: Any, batch_idx: int) -> Any:
        if next(steps) == number:
            raise error
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Module, "training_step", counted)
        yield


@pytest.fixture(scope="session")
def made_up_year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.families.flights.tables import source

    return made_up_flights.write_year(tmp_path_factory.mktemp("data") / source.FOLDER)


@pytest.fixture
def fits(made_up_year: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fits]:
    made_up_flights.take_for_the_real_ones(made_up_year, monkeypatch)
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    (tmp_path / "artifacts").mkdir()
    shutil.copy(empty_store, tmp_path / "artifacts")
    for name in ("PL_GLOBAL_SEED", "MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_TIMEOUT"):  # a fit sets them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before, environment = signal.getsignal(signal.SIGINT), dict(os.environ)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more wait for each other longer than they compute, on a machine that is busy
    yield Fits(tmp_path / "artifacts")
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, before)  # Lightning takes no second Ctrl-C
    os.environ.clear()
    os.environ.update(environment)
