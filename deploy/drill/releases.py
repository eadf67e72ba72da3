"""Releases in a drill: published, overwritten, changed in all that lies around their graphs, rolled back, promoted."""

import shutil
from http.client import HTTPException
from pathlib import Path

from tritonclient.http import InferenceServerClient

from contracts import bundle, golden, model_config, repository
from contracts.bundle import Bundle
from contracts.golden import GoldenRequest
from deploy.drill.server_copy import DrillCopy, next_version
from deploy.errors import DrillError
from deploy.proving import rest
from deploy.served import content

_MARK = "drill"  # a tag that the drill puts into configurations, which Triton gives to metrics alone
_MORE_DELAY_US = 100  # that the batches of a changed release wait
_TIMEOUT_S = 10.0  # of a request


def publish_new_version(copy: DrillCopy) -> str:
    """Publish a copy of the newest version as the next one, and reload."""
    with next_version(copy.directory):
        pass
    return copy.must("reload", copy.model)


def overwrite_version(copy: DrillCopy) -> str:
    """Replace every file of the newest version by a copy of itself, and reload."""
    newest = copy.directory / str(repository.versions(copy.directory)[-1])
    for path in [path for path in newest.rglob("*") if path.is_file()]:
        again = path.with_name(f".{path.name}")
        shutil.copyfile(path, again)
        again.rename(path)
    return copy.must("reload", copy.model)


def publish_bad_version(copy: DrillCopy) -> str:
    """Publish a version with truncated graphs and plans; the reload has to refuse it.

    Raises:
        DrillError: it was not refused.
    """
    with next_version(copy.directory) as staged:
        for path in [path for path in staged.directory.rglob("*") if path.suffix in (".onnx", ".plan")]:
            _replace(path, path.read_bytes()[: path.stat().st_size // 2])
    code, output, errors = copy.deploy("reload", copy.model)
    _, refused, reason = errors.partition("did not load\nNote: ")
    if code == 0 or not refused:
        raise DrillError("a truncated graph was not refused", note=output + errors)
    return f"refused: {reason.splitlines()[0]}"


def publish_changed_release(copy: DrillCopy) -> str:
    """Publish a release whose configurations, steps and labels are other ones, too, and reload.

    It answers as the one before, so that a request that meets steps of both shows by no wrong answer; `benchmarks
    switch` has releases in which it does.

    Raises:
        DrillError: the server does not serve it as it is.
    """
    with next_version(copy.directory) as staged:
        if not (models := staged.directory / bundle.FOLDER).is_dir():
            bundle.write(copy.repository, copy.model, staged.directory)
        for folder in models.iterdir():
            _change(folder, f"release {staged.version}")
    return as_released(copy, copy.must("reload", copy.model))


def roll_back(copy: DrillCopy) -> str:
    """Roll back to the version before.

    Raises:
        DrillError: the server does not serve it as it was.
    """
    return as_released(copy, copy.must("rollback", copy.model))


def promote(copy: DrillCopy) -> str:
    """Promote the newest version, which is parked.

    Raises:
        DrillError: the server does not serve it as it was.
    """
    return as_released(copy, copy.must("promote", copy.model))


def as_released(copy: DrillCopy, said: str) -> str:
    """Return what a command said, once it is seen that the newest release answers, each model with its configuration.

    Raises:
        DrillError: one does not.
    """
    newest = repository.versions(copy.directory)[-1]
    with InferenceServerClient(copy.http) as client:
        release = content.release(copy.repository, copy.model, newest)
        inside = _run_by_others(client, release)
        for name, folder in [(name, folder) for name, folder in release.models.items() if name not in inside]:
            wanted = model_config.read(folder / model_config.FILE_NAME).metric_tags.get(_MARK, "")
            found = client.get_model_config(name).get("metric_tags", {}).get(_MARK, "")
            if found != wanted:
                note = f"it is marked {found!r} where it runs, and {wanted!r} in the release"
                raise DrillError(f"{name} does not run with the configuration of release {newest}", note=note)
    asked = {request.model: request for request in golden.read(release.directory) if request.model in release.models}
    for model, request in asked.items():
        found = _answering(copy, model, request)
        if found != str(newest):
            raise DrillError(f"release {newest} of {model} does not answer", note=f"it is {found} that does")
    return said


def _answering(copy: DrillCopy, model: str, request: GoldenRequest) -> str:
    """Return the number of the release that answers a request, as the answer says.

    Raises:
        DrillError: none does.
    """
    try:
        answer = rest.infer(copy.http, model, request.inputs, _TIMEOUT_S)
    except (OSError, HTTPException) as error:
        raise DrillError(f"{model} does not answer", note=str(error) or type(error).__name__) from error
    if isinstance(answer, rest.Refusal):
        raise DrillError(f"{model} does not answer", note=answer.reason)
    return answer.version


def _run_by_others(client: InferenceServerClient, release: Bundle) -> set[str]:
    """Return the steps that ensembles of the release run in one process: no models of the server."""
    inside = set[str]()
    for name, folder in release.models.items():
        steps = model_config.steps(model_config.read(folder / model_config.FILE_NAME))
        if steps and client.get_model_config(name).get("backend") == model_config.IN_PROCESS:
            inside.update(steps)
    return inside - {release.network}


def _change(folder: Path, mark: str) -> None:
    """Change the batching of a model of a release, its labels and its sources, and mark its configurations."""
    from google.protobuf import text_format

    for path in model_config.paths(folder):
        config = model_config.read(path)
        config.metric_tags[_MARK] = mark
        if config.HasField("dynamic_batching"):
            config.dynamic_batching.max_queue_delay_microseconds += _MORE_DELAY_US
        _replace(path, text_format.MessageToString(config, as_utf8=True).encode())
    for path in [*folder.glob("*/*.py"), *folder.glob("*labels*.txt")]:
        comment = f"# changed for {mark}" if path.suffix == ".py" else f"a class that {mark} has more"
        _replace(path, f"{path.read_text().rstrip()}\n{comment}\n".encode())


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # what lies in a bundle is read-only
    path.write_bytes(content)
