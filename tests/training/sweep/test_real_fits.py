"""Real fits as trials, by epochs and by trees; the best is reproduced, and exported by the next command."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.workspace import Workspace, new_workspace

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


def searched(place: Workspace, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.must("training", "sweep", *arguments, "--json"))
    return found


def again(place: Workspace, command: str) -> float:
    """Train once more by the command that is told; the val_auc of the epoch that was kept, which is the best."""
    from mlflow import MlflowClient

    program, dash, module, *rest = [word for word in shlex.split(command) if "=" not in word or word.startswith("-")]
    assert (program, dash, module) == ("python", "-m", "training")
    place.must("training", *rest)
    client = MlflowClient(f"sqlite:///{place.root / 'artifacts' / 'mlflow.db'}")
    [experiment] = [e.experiment_id for e in client.search_experiments() if e.name == rest[1]]
    newest, *_ = client.search_runs([experiment], "tags.trial IS NULL and tags.sweep IS NULL")
    return max(epoch.value for epoch in client.get_metric_history(newest.info.run_id, "val_auc"))


@pytest.mark.parametrize("preset", ["lightgbm", "xgboost", "logistic", "mlp"])
def test_every_kind_of_model_is_searched_reproduced_and_exported(tmp_path: Path, preset: str) -> None:
    place = new_workspace(tmp_path)
    few = ("--data.rows=600",)
    short = (*few, "--trainer.max_epochs=3") if preset == "mlp" else few
    found = searched(place, "flights", "--preset", preset, "--trials", "4", *short)
    best = found["front"][0]
    assert best["state"] == "complete" and 0.5 < best["val_auc"] < 1
    if preset != "logistic":
        assert 0 < best["latency_ms"] < 50
    assert again(place, best["reproduce"]) == pytest.approx(best["val_auc"], abs=1e-6)
    checkpoint = shlex.split(best["export"])[-1]
    assert Path(checkpoint).is_file()
