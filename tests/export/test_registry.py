"""A release becomes a model version that leads back to its checkpoint. A real MLflow store, in a file."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts import manifest
from contracts.manifest import Choice, Engine, Gate, Judge, Manifest, Source, Timing, Variant
from export.errors import RegistryError
from export.registry import checkpoint, versions

if TYPE_CHECKING:  # it takes seconds to import
    from mlflow import MlflowClient

CHECKPOINT = b"a checkpoint"


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    """Of the store that MLFLOW_TRACKING_URI names, with the experiment that training makes."""
    from mlflow import MlflowClient

    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_experiment("fashion", artifact_location=(tmp_path / "mlflow").as_uri())
    return client


@pytest.fixture
def training_run(client: "MlflowClient", tmp_path: Path) -> str:
    """A run as `training fit` leaves one."""
    experiment = client.get_experiment_by_name("fashion")
    assert experiment
    run_id: str = client.create_run(experiment.experiment_id).info.run_id
    for name, content in {"best.ckpt": CHECKPOINT, "config.yaml": b""}.items():
        (tmp_path / name).write_bytes(content)
        client.log_artifact(run_id, str(tmp_path / name), "checkpoint")
    client.set_terminated(run_id)
    return run_id


def published(directory: Path, training_run: str | None, version: int = 1) -> Manifest:
    """A version in `directory`, as the pipeline publishes one."""
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"weights")
    int8 = Variant(
        precision="int8",
        score=0.9,
        gates=(Gate("agreement", 0.999, 0.998, "at least"), Gate("drop, 95 % bound", 0.1, 0.5, "at most")),
        size_bytes=7,
        sha256="22",
        engine=Engine("tensorrt 11.1", 100, 0.1, {"INT8": 1.0}, gates=(Gate("agreement", 0.9985, 0.998, "at least"),)),
        timings={"model.onnx": Timing({"1": 0.2, "32": 4.0}, {}, {})},
    )
    checkpoint = manifest.sha256(directory.parent / "best.ckpt") if training_run else "33"
    release = Manifest(
        family="fashion",
        model="fashion_classifier",
        version=version,
        created_at="2026-01-01T00:00:00+00:00",
        command="python -m export fashion",
        source=Source("best.ckpt", checkpoint, "11", training_run, "abc123", False),
        tools={"torch": "2.13.0"},
        calibration_samples=0,
        test_samples=0,
        reference_score=0.91,
        gates=(Gate("configurations", 0, 0, "at most"),),
        variants=(int8,),
        trials=(),
        sensitivity=(),
        choices=(Choice("model.onnx", "int8", "the fastest"),),
        files=manifest.files_of(directory),
        metric=Judge("accuracy"),
    )
    manifest.write(release, directory)
    return release


def test_a_release_is_registered_with_its_figures_and_files(
    client: "MlflowClient", training_run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    release = published(tmp_path / "1", training_run)
    assert versions.register(release, tmp_path / "1") == "models:/fashion/1"
    assert capfd.readouterr() == ("", "")  # a command prints what it made, not what MLflow logs
    version = client.get_model_version_by_alias("fashion", "challenger")
    assert version.tags == {
        "model": "fashion_classifier",
        "release_version": "1",
        "manifest_sha256": manifest.sha256(tmp_path / "1" / "manifest.json"),
        "source_sha256": manifest.sha256(tmp_path / "best.ckpt"),
        "checkpoint_sha256": manifest.sha256(tmp_path / "best.ckpt"),
        "training_run_id": training_run,
        "git_commit": "abc123",
        "precision.model.onnx": "int8",
    }
    run = client.get_run(version.run_id or "")
    assert run.info.run_name == "export fashion_classifier v1" and run.info.status == "FINISHED"
    assert run.data.metrics == {
        "release/configurations": 0,
        "reference/accuracy": 0.91,
        "int8/accuracy": 0.9,
        "int8/agreement": 0.999,
        "int8/drop_ 95 _ bound": 0.1,
        "int8/engine/agreement": 0.9985,
        "int8/model.onnx/median_ms_batch_1": 0.2,
        "int8/model.onnx/median_ms_batch_32": 4.0,
    }
    assert run.data.params == {"precision/model.onnx": "int8", "tools/torch": "2.13.0"}
    files = client.list_artifacts(run.info.run_id, "release")
    assert {f.path for f in files} == {"release/manifest.json", "release/model.onnx"}
    assert version.source == f"{run.info.artifact_uri}/release"


def test_a_release_is_registered_once(client: "MlflowClient", training_run: str, tmp_path: Path) -> None:
    first, second = published(tmp_path / "1", training_run), published(tmp_path / "2", training_run, 2)
    versions.register(first, tmp_path / "1")
    client.set_registered_model_alias("fashion", "champion", "1")
    assert versions.register(second, tmp_path / "2") == "models:/fashion/2"
    assert versions.register(second, tmp_path / "2") == "models:/fashion/2"
    assert len(client.search_model_versions("name = 'fashion'")) == 2
    aliases = client.get_registered_model("fashion").aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"champion": "1", "challenger": "2"}


def test_a_checkpoint_is_found_by_alias_version_and_run(
    client: "MlflowClient", training_run: str, tmp_path: Path
) -> None:
    versions.register(published(tmp_path / "1", training_run), tmp_path / "1")
    client.set_registered_model_alias("fashion", "champion", "1")
    export_run = client.get_model_version("fashion", "1").run_id
    references = ["models:/fashion@champion", "models:/fashion/1", f"runs:/{training_run}", training_run, export_run]
    for number, reference in enumerate(references):
        path = checkpoint.download(str(reference), tmp_path / f"download{number}")
        assert path.read_bytes() == CHECKPOINT
        assert path.name == "best.ckpt" and path.is_relative_to(tmp_path / f"download{number}")


def test_a_checkpoint_that_was_replaced_is_refused(client: "MlflowClient", training_run: str, tmp_path: Path) -> None:
    versions.register(published(tmp_path / "1", training_run), tmp_path / "1")
    (tmp_path / "best.ckpt").write_bytes(b"another one")
    client.log_artifact(training_run, str(tmp_path / "best.ckpt"), "checkpoint")
    with pytest.raises(RegistryError, match=r"is not the one that models:/fashion@challenger was exported from"):
        checkpoint.download("models:/fashion@challenger", tmp_path / "download")
    assert not list((tmp_path / "download").rglob("*.ckpt"))


def test_a_release_of_somebody_elses_graph_leads_to_no_checkpoint(client: "MlflowClient", tmp_path: Path) -> None:
    versions.register(published(tmp_path / "1", None), tmp_path / "1")
    assert not client.get_model_version("fashion", "1").tags.keys() & {"training_run_id", "checkpoint_sha256"}
    with pytest.raises(RegistryError, match="models:/fashion/1 leads to no checkpoint"):
        checkpoint.download("models:/fashion/1", tmp_path)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("models:/fashion@champion", "alias champion not found"),
        ("models:/fashion/7", r"version=7\) not found"),
        ("models:/shoes@champion", "shoes"),
        ("models:/fashion", "names no version"),
        ("models:/", "Not a proper models:/ URI"),
        ("runs:/0123456789abcdef", "0123456789abcdef"),
        ("no such thing", "no such thing"),
    ],
)
def test_what_does_not_exist_is_named(
    client: "MlflowClient", training_run: str, tmp_path: Path, reference: str, reason: str
) -> None:
    versions.register(published(tmp_path / "1", training_run), tmp_path / "1")
    with pytest.raises(RegistryError, match=reason) as refused:
        checkpoint.download(reference, tmp_path / "download")
    assert reference in str(refused.value)


def test_a_store_that_does_not_answer_is_an_error_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        release = published(tmp_path / "1", None)
        with pytest.raises(RegistryError, match="the store is the one that MLFLOW_TRACKING_URI names") as refused:
            versions.register(release, tmp_path / "1")
    assert "Connection refused" in str(refused.value) and "secret" not in str(refused.value)
