"""The exporter's image publishes what its own Triton has served; plans need a GPU, and it says so."""

import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from contracts import layout, manifest, repository
from tests.conftest import FAMILY, MODEL, Workspace, new_workspace
from tests.images import build, debian, podman, standin
from tests.images.build import Image
from tests.images.conftest import TRITON_DOCKERFILE, checkout_tag
from tests.images.containers import LOCKED, SHARED_MEMORY, ended

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(1800)]

UID = 4321


@pytest.fixture(scope="module")
def image(images: None) -> Image:
    """Over a stand-in with the Python that the lock is resolved for: it is the one that has a torch without CUDA."""
    base = os.environ.get("TRITON") or standin.image(debian.PYTHON)
    made = build.build(TRITON_DOCKERFILE, f"export:{checkout_tag()}", target="export", arguments={"TRITON": base})
    podman.say(str(made))
    return made


@pytest.fixture
def folders(checkpoint: Path, shared: Workspace, tmp_path: Path) -> list[str]:
    """What deploy/compose.yaml mounts, of another user: a checkpoint, the data, a repository without a release."""
    new_workspace(tmp_path)
    shutil.copytree(checkpoint.parents[2], tmp_path / "artifacts" / "checkpoints")
    shutil.copytree(layout.data(), tmp_path / "data")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, UID, UID)
    tmp_path.chmod(0o755)
    return [f"--volume={tmp_path / name}:/app/{name}" for name in ("model_repository", "artifacts", "data")]


def test_it_says_what_it_does(image: Image) -> None:
    code, said = ended(image.identity, options=LOCKED)
    assert code == 0 and "python -m export FAMILY" in said


def test_an_export_as_another_user_publishes_what_its_own_triton_has_served_and_registers_it(
    image: Image, folders: list[str], tmp_path: Path
) -> None:
    outside = f"--env=ARTIFACTS_OUTSIDE={tmp_path / 'artifacts'}"
    options = [*LOCKED, SHARED_MEMORY, f"--user={UID}:{UID}", "--env=HOME=/tmp", outside, *folders]
    code, said = ended(image.identity, FAMILY, options=options, timeout_s=900)
    assert code == 0, said
    version = tmp_path / "model_repository" / MODEL / "1"
    assert repository.versions(version.parent) == [1]
    manifest.verify(version)
    served = manifest.read(version).served
    assert served is not None and version.stat().st_uid == UID
    store = MlflowClient(f"sqlite:///{tmp_path}/artifacts/mlflow.db")  # as plain MLflow finds it here
    registered = store.get_model_version_by_alias(FAMILY, "challenger")
    assert registered.source and Path(registered.source.removeprefix("file://")).is_relative_to(tmp_path / "artifacts")
    files = {file.path for file in store.list_artifacts(str(registered.run_id), "release")}
    assert "release/manifest.json" in files, files


def test_plans_need_a_gpu_and_that_is_said(image: Image, folders: list[str]) -> None:
    options = [*LOCKED, SHARED_MEMORY, f"--user={UID}:{UID}", "--env=HOME=/tmp", *folders]
    code, said = ended(image.identity, FAMILY, "--target", "tensorrt", options=options, timeout_s=300)
    assert code == 1 and "error: tensorrt is not installed" in said
