"""MLflow's model registry: a published version becomes a model version, and a model version leads to its checkpoint.

  models:/FAMILY@challenger    what was exported last; nothing here ever moves the alias `champion`
  models:/FAMILY/3             a version by its number in the registry
  runs:/<run id>                a run of `python -m training fit`

The store is that of the training stage (training/tracking.py): MLFLOW_TRACKING_URI, or artifacts/mlflow.db.
"""

import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import layout, manifest
from contracts.manifest import Gate, Manifest
from export.errors import RegistryError
from training import tracking
from training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "challenger"
_RELEASE, _CHECKPOINT = "release", "checkpoint"  # folders among a run's artifacts; the latter is the training stage's

# MLflow would otherwise draw progress bars, print addresses among our output, and try for 4 minutes.
_DEFAULTS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_NAMED = "the one that MLFLOW_TRACKING_URI names"
_PASSWORD = re.compile(r"//[^/@\s]+@")  # in an address
_FLUSHED = re.compile(r"^\(raised as a result of [^)]*\)")  # SQLAlchemy's first line, before what happened


def register(release: Manifest, directory: Path) -> str:
    """Register the version published in `directory` as its family's next model version and challenger.

    The same manifest is registered once: after that its model version becomes the challenger again.

    Returns:
        Its name in the registry, "models:/FAMILY/3".

    Raises:
        RegistryError: the store does not answer, or refuses.
    """
    digest = manifest.sha256(directory / manifest.FILE_NAME)
    with _mlflow(f"register {layout.shown(directory)}") as client:
        same = f"name = '{release.family}' and tags.manifest_sha256 = '{digest}'"
        known = client.search_model_versions(same)
        if known:
            version = str(known[0].version)
            _complete(client, known[0].run_id, directory)
        else:
            version = _add(client, release, directory, _tags(release, digest))
        client.set_registered_model_alias(release.family, ALIAS, version)
    return f"models:/{release.family}/{version}"


def download_checkpoint(reference: str, download_to: Path) -> Path:
    """Download the checkpoint that a model version was exported from, or that a training run logged.

    Args:
        reference: "models:/FAMILY@champion", "models:/FAMILY/3", "runs:/<run id>" or a run id.

    Raises:
        RegistryError: the store does not answer; it has no such thing; the run has no checkpoint, or has another
            one than the model version was exported from.
    """
    with _mlflow(f"find the checkpoint of {reference}") as client:
        run_id, expected = _training_run(client, reference)
        files = tracking.files_of(client, run_id)
        found = [f.path for f in files.list_artifacts(_CHECKPOINT) if f.path.endswith(".ckpt")]
        if len(found) != 1:
            raise RegistryError(
                f"{reference} leads to no checkpoint",
                note=f"found {len(found)} in {_CHECKPOINT}/ of the MLflow run {run_id}, where training leaves one",
                hint="name a run of python -m training fit, or a file with --checkpoint",
            )
        download_to.mkdir(parents=True, exist_ok=True)
        path = Path(files.download_artifacts(found[0], str(download_to)))
    if expected not in (None, digest := manifest.sha256(path)):
        path.unlink()
        raise RegistryError(
            f"the checkpoint of run {run_id} is not the one that {reference} was exported from",
            note=f"found {digest}, expected {expected}",
            hint="it may have been last.ckpt, or the run's files have changed; name the file with --checkpoint",
        )
    return path


@contextmanager
def _mlflow(purpose: str) -> Iterator["MlflowClient"]:
    """Open a client of the store; whatever goes wrong there is a RegistryError."""
    _set_defaults()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # A database may want a driver.
    broken = (MlflowException, SQLAlchemyError, TrainingError, sqlite3.Error, OSError, ImportError)
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is raised is told by us
    try:
        yield MlflowClient(tracking.open_store())
    except broken as error:
        raise RegistryError(
            f"cannot {purpose} in MLflow",
            note=_PASSWORD.sub("//", _FLUSHED.sub("", str(error)).strip().partition("\n")[0]),
            hint=f"the store is {_NAMED if tracking.named() else layout.shown(tracking.database())}",
        ) from error


def _set_defaults() -> None:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        Path.home()  # MLflow asks for it when it is imported
    except RuntimeError:  # no HOME, and no entry in passwd, as a user of a container may have it
        os.environ["HOME"] = tempfile.gettempdir()


def _add(client: "MlflowClient", release: Manifest, directory: Path, tags: dict[str, str]) -> str:
    """Log a run with everything of the release and make a model version of it; return the version's number."""
    from mlflow.entities import Metric, Param

    name = f"export {release.model} v{release.version}"
    run = client.create_run(_experiment(client, release.family), run_name=name, tags=tags)
    run_id, status, now = run.info.run_id, "FAILED", int(time.time() * 1000)
    try:
        client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, 0) for key, value in _metrics(release).items()],
            params=[Param(key, value) for key, value in _params(release).items()],
        )
        tracking.files_of(client, run_id).log_artifacts(str(directory), _RELEASE)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    if not client.search_registered_models(f"name = '{release.family}'"):
        client.create_registered_model(release.family)
    source = f"{run.info.artifact_uri}/{_RELEASE}"
    return str(client.create_model_version(release.family, source, run_id, tags=tags).version)


def _complete(client: "MlflowClient", run_id: str | None, directory: Path) -> None:
    """Log the files of a registered release again where they were lost, as in a container that is no more."""
    if run_id and not (files := tracking.files_of(client, run_id)).list_artifacts(_RELEASE):
        files.log_artifacts(str(directory), _RELEASE)


def _experiment(client: "MlflowClient", family: str) -> str:
    """Return the id of the family's experiment, the one its training runs are in; make it if it is missing."""
    found = client.get_experiment_by_name(family)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(family, artifact_location=tracking.artifact_location()))


def _training_run(client: "MlflowClient", reference: str) -> tuple[str, str | None]:
    """Return the run that logged the checkpoint, and the checkpoint's SHA-256 where that is recorded."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    if reference.startswith("models:"):
        found = get_model_name_and_version(client, reference)
        if len(found) != 2:
            raise RegistryError(f"{reference} names no version", hint=f"{reference}@{ALIAS}, or {reference}/1")
        version = client.get_model_version(*found)
        run_id, tags = version.run_id or "", version.tags
    else:
        run_id = reference.removeprefix("runs:/")
        tags = client.get_run(run_id).data.tags
    return tags.get("training_run_id", run_id), tags.get("checkpoint_sha256")


def _metrics(release: Manifest) -> dict[str, float]:
    """Return {"int8/agreement": 0.999, "int8/model.onnx/median_ms_batch_1": 0.2, …}."""
    figures = _figures("release", release.gates)
    if release.reference_score is not None and release.metric is not None:
        figures[f"reference/{release.metric.name}"] = release.reference_score
    for variant in release.variants:
        figures |= _figures(variant.precision, variant.gates)
        if variant.engine:
            figures |= _figures(f"{variant.precision}/engine", variant.engine.gates)
        if variant.score is not None and release.metric is not None:
            figures[f"{variant.precision}/{release.metric.name}"] = variant.score
        for file, timing in variant.timings.items():
            for batch, median in timing.median_ms.items():
                figures[f"{variant.precision}/{file}/median_ms_batch_{batch}"] = median
    return figures


def _figures(prefix: str, gates: tuple[Gate, ...]) -> dict[str, float]:
    """Name the gates' figures as MLflow admits it: letters, digits, spaces and -_.: alone."""
    return {f"{prefix}/{re.sub(r'[^-_.: a-zA-Z0-9]+', '_', gate.id)}": gate.figure for gate in gates}


def _params(release: Manifest) -> dict[str, str]:
    chosen = {f"precision/{choice.file}": choice.precision for choice in release.choices}
    return chosen | {f"tools/{name}": version for name, version in release.tools.items()}


def _tags(release: Manifest, digest: str) -> dict[str, str]:
    """Say where the release came from; `_training_run` finds its checkpoint by two of these."""
    source = release.source
    tags = {
        "model": release.model,
        "release_version": str(release.version),
        "manifest_sha256": digest,
        "source_sha256": source.sha256,
        "git_commit": source.git_commit,
        "training_run_id": source.mlflow_run_id,
        "checkpoint_sha256": source.sha256 if source.mlflow_run_id else None,  # a graph of somebody else's has none
        **{f"precision.{choice.file}": choice.precision for choice in release.choices},
    }
    return {key: value for key, value in tags.items() if value is not None}
