"""A checkpoint is read back whole and of the right family, or refused with the reason."""

import os
from pathlib import Path

import pytest

from tests.conftest import FAMILY, Workspace
from training import families
from training.errors import CheckpointError
from training.lineage import KEY


@pytest.fixture(scope="module")
def family() -> families.Family:
    return families.load(FAMILY)


def test_a_checkpoint_is_read_back_with_its_lineage(checkpoint: Path, family: families.Family) -> None:
    import torch

    from training import checkpoints

    read = checkpoints.read(checkpoint, family)
    assert read.lineage.family == FAMILY
    assert read.lineage.data_fingerprint == family.data().fingerprint
    assert len(read.lineage.git_commit or "") == 40
    assert read.lineage.mlflow_run_id
    assert len(read.sha256) == 64
    assert not read.module.training
    [group] = family.data().split("test").first(500).groups
    pixels = torch.from_numpy(group.inputs["pixels"].copy())
    with torch.inference_mode():
        logits, probabilities = read.module.served()(pixels)
        assert torch.equal(logits, read.module(pixels)), "what is exported is what was trained"
    assert torch.equal(probabilities, logits.softmax(1))
    assert (logits.argmax(1).numpy() == group.targets).mean() > 0.5, "weights were not restored"


def test_the_newest_run_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import checkpoints

    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    runs = tmp_path / "checkpoints" / FAMILY
    for run in ("b-first", "a-second"):
        (runs / run).mkdir(parents=True)
        (runs / run / "best.ckpt").touch()
    os.utime(runs / "b-first" / "best.ckpt", (1, 1))
    assert checkpoints.newest(FAMILY).parent.name == "a-second"


def damaged(checkpoint: Path, tmp_path: Path, how: str) -> Path:
    import torch

    path = tmp_path / "damaged.ckpt"
    whole = checkpoint.read_bytes()
    if how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("not a checkpoint")
    else:
        raw = torch.load(checkpoint, weights_only=True)
        if how == "another family":
            raw[KEY]["family"] = "tabular"
        else:
            del raw[KEY]
        torch.save(raw, path)
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "is damaged or is not a checkpoint"),
        ("empty", "is damaged or is not a checkpoint"),
        ("text", "is damaged or is not a checkpoint"),
        ("another family", "is a checkpoint of another family"),
        ("not ours", "was not written by this project's training stage"),
    ],
)
def test_bad_checkpoints_are_refused_by_export_and_nothing_is_published(
    checkpoint: Path, workspace: Workspace, how: str, message: str
) -> None:
    path = damaged(checkpoint, workspace.root, how)
    done = workspace.run("export", FAMILY, "--checkpoint", path, "--repository", workspace.repository)
    assert done.returncode == 1
    assert f"error: {path} {message}" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name for p in workspace.model.iterdir()} == {"config.pbtxt", "configs"}


def test_no_checkpoint_says_how_to_train_one(workspace: Workspace) -> None:
    done = workspace.run("export", FAMILY, "--repository", workspace.repository)
    assert done.returncode == 1
    assert f"there is no {FAMILY} checkpoint" in done.stderr
    assert f"python -m training fit {FAMILY}" in done.stderr


def test_a_path_that_is_not_there_is_named(family: families.Family, tmp_path: Path) -> None:
    from training import checkpoints

    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoints.read(tmp_path / "nope.ckpt", family)
