"""A published version becomes a model version of its family in MLflow's registry, and its challenger."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import layout, manifest
from contracts.manifest import Gate, Manifest
from export.registry import store
from training import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"  # the alias of what was exported last
FOLDER = "release"  # among the artifacts of a model version's run
DIGEST = "manifest_sha256"  # the tag by which a model version is known


def register(release: Manifest, directory: Path) -> str:
    """Register the version published in `directory` as its family's next model version and challenger.

    The same manifest is registered once: after that its model version becomes the challenger again, unless its run
    was removed from MLflow.

    Returns:
        Its name in the registry, "models:/FAMILY/3".

    Raises:
        RegistryError: the store does not answer, or refuses.
    """
    digest = manifest.sha256(directory / manifest.FILE_NAME)
    with store.opened(f"register {layout.shown(directory)}") as client:
        same = f"name = '{release.family}' and tags.manifest_sha256 = '{digest}'"
        known = [found for found in client.search_model_versions(same) if has_run(client, found)]
        if known:
            version = str(known[0].version)
            _complete(client, known[0].run_id, directory)
        else:
            version = _add(client, release, directory, _tags(release, digest))
        client.set_registered_model_alias(release.family, CHALLENGER, version)
    return f"models:/{release.family}/{version}"


def has_run(client: "MlflowClient", found: "ModelVersion") -> bool:
    """Tell whether a model version has its run still, with the files: `mlflow gc` removes runs that were deleted."""
    from mlflow.exceptions import MlflowException

    if not found.run_id:
        return True  # registered by hand, without one
    try:
        client.get_run(found.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _add(client: "MlflowClient", release: Manifest, directory: Path, tags: dict[str, str]) -> str:
    """Log a run with everything of the release and make a model version of it; return the version's number."""
    from mlflow.entities import Metric, Param

    name = f"export {release.model} v{release.version}"
    run = client.create_run(tracking.experiment(client, release.family), run_name=name, tags=tags)
    run_id, status, now = run.info.run_id, "FAILED", int(time.time() * 1000)
    try:
        client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, 0) for key, value in _metrics(release).items()],
            params=[Param(key, value) for key, value in _params(release).items()],
        )
        tracking.upload(client, run_id, directory, FOLDER)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    if not _is_registered(client, release.family):
        _begin(client, release.family)
    source = f"{run.info.artifact_uri}/{FOLDER}"
    return str(client.create_model_version(release.family, source, run_id, tags=tags).version)


def _is_registered(client: "MlflowClient", family: str) -> bool:
    return bool(client.search_registered_models(f"name = '{family}'"))


def _begin(client: "MlflowClient", family: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(family)
    except MlflowException:
        if not _is_registered(client, family):  # else somebody else was just doing so
            raise


def _complete(client: "MlflowClient", run_id: str | None, directory: Path) -> None:
    """Log the files of a registered release again where they were lost, as in a container that is no more."""
    if run_id and not tracking.files_of(client, run_id).list_artifacts(FOLDER):
        tracking.upload(client, run_id, directory, FOLDER)


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
