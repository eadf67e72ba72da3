"""The main job, with a training so short that only the numbers are worse."""

import json
import subprocess
import sys

import pytest

from contracts import layout, repository
from tests.conftest import Workspace, processes_of


@pytest.mark.heavy
def test_the_demo_publishes_serves_compares_and_leaves_nothing_running(workspace: Workspace) -> None:
    """And once more, with what was trained before."""
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "60"]
    for version, options in ((1, short), (2, ["--again"])):
        done = subprocess.run(
            [sys.executable, "demo.py", *options],
            cwd=layout.ROOT,
            env={**workspace.environment, "MODEL_REPOSITORY": str(workspace.repository)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert json.loads((workspace.root / "artifacts" / "demo.json").read_text()) == result
        assert result["published_version"] == version
        assert result["served_images"] == 10_000
        assert abs(result["served_accuracy"] - result["offline_accuracy"]) <= 0.001
        assert result["golden_requests"] > 16
        assert result["wrong_answers"] == []
        assert [variant["precision"] for variant in result["variants"]] == ["fp32", "fp16", "int8"]
        assert (workspace.root / "artifacts" / "demo.png").stat().st_size > 10_000
        assert not processes_of(workspace)
    assert repository.versions(workspace.model) == [1, 2]
