"""From a model version, or a training run, back to its checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from contracts import manifest
from export.errors import RegistryError
from export.registry import store
from training import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FOLDER = "checkpoint"  # among a run's artifacts, where the training stage leaves one


def download(reference: str, download_to: Path) -> Path:
    """Download the checkpoint that a model version was exported from, or that a training run logged.

    Args:
        reference: "models:/FAMILY@champion", "models:/FAMILY/3", "runs:/<run id>" or a run id.

    Raises:
        RegistryError: the store does not answer; it has no such thing; the run has no checkpoint, or has another
            one than the model version was exported from.
    """
    with store.opened(f"find the checkpoint of {reference}") as client:
        run_id, expected = _training_run(client, reference)
        files = tracking.files_of(client, run_id)
        found = [f.path for f in files.list_artifacts(_FOLDER) if f.path.endswith(".ckpt")]
        if len(found) != 1:
            raise RegistryError(
                f"{reference} leads to no checkpoint",
                note=f"found {len(found)} in {_FOLDER}/ of the MLflow run {run_id}, where training leaves one",
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


def _training_run(client: "MlflowClient", reference: str) -> tuple[str, str | None]:
    """Return the run that logged the checkpoint, and the checkpoint's SHA-256 where that is recorded."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    if reference.startswith("models:"):
        found = get_model_name_and_version(client, reference)
        if len(found) != 2:
            raise RegistryError(f"{reference} names no version", hint=f"{reference}@champion, or {reference}/1")
        version = client.get_model_version(*found)
        run_id, tags = version.run_id or "", version.tags
    else:
        run_id = reference.removeprefix("runs:/")
        tags = client.get_run(run_id).data.tags
    return tags.get("training_run_id", run_id), tags.get("checkpoint_sha256")
