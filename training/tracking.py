"""MLflow's store: the one that MLFLOW_TRACKING_URI names, or ours, in the artifacts folder wherever that lies today."""

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import layout
from contracts.trust import account as accounts
from contracts.trust.account import Account
from training import artifact_roots
from training.errors import TrainingError

if TYPE_CHECKING:  # it takes seconds to import
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


_CURRENT_USER = "/api/2.0/mlflow/users/current"  # of MLflow's own basic-auth; 404 of a server without accounts
_ASKED_S = 30  # seconds that a server may take to say so

_FILES = "mlflow"  # in the artifacts folder: <run id>/artifacts/
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # in seconds, until a server answers
_SLOWEST = 1 << 20  # bytes a second at which a server may hand a file on to where it keeps it


def named() -> str | None:
    """Return what MLFLOW_TRACKING_URI names: a server, or a store that is left as it is."""
    store = os.environ.get("MLFLOW_TRACKING_URI")
    return store if store and store != _ours() else None  # MLflow sets it to what it was given


def account(*, sure: bool = False) -> Account:
    """Return who this process runs as, with its account at the MLflow server where that has accounts.

    Args:
        sure: Whether a server that does not answer is an error; else the account there is left away.

    Raises:
        MlflowException: it does not answer, or does not know who asks.
    """
    store = named() or ""
    if not store.startswith(("http://", "https://")):
        return accounts.of_this_process()
    from mlflow.exceptions import MlflowException

    try:
        return accounts.of_this_process(_current_user(store))
    except MlflowException:
        if sure:
            raise
        return accounts.of_this_process()


def database() -> Path:
    """Return the file of our own store."""
    return layout.artifacts() / "mlflow.db"


def open_store() -> str:
    """Return the store's address for MLflow, after our own was brought to record its files where they are now.

    With ARTIFACTS_OUTSIDE, as in a container, the folder is its owner's: the paths stay those the owner knows, and
    `files_of` finds the files all the same.

    Raises:
        TrainingError: our own cannot be opened.
    """
    if store := named():
        return store
    try:
        layout.artifacts().mkdir(parents=True, exist_ok=True)
        sqlite3.connect(database()).close()  # MLflow would try for two minutes
    except (OSError, sqlite3.Error) as error:
        raise TrainingError(
            f"{layout.shown(database())} cannot be opened",
            note=str(error),
            hint="ARTIFACTS_DIR names a folder that is yours, MLFLOW_TRACKING_URI another store",
        ) from error
    if _outside() is None:
        artifact_roots.follow(database(), _files())
    return _ours()


def artifact_location() -> str | None:
    """Return where a new experiment is to keep its artifacts; None lets a store that is not ours decide."""
    if named():
        return None
    if (outside := _outside()) is not None:
        owners = artifact_roots.moved(database(), _files()).formerly
        return (next(iter(owners)) if len(owners) == 1 else outside / _FILES).as_uri()
    return _files().as_uri()


def experiment(client: "MlflowClient", name: str) -> str:
    """Return the id of an experiment; make it where there is none.

    Raises:
        TrainingError: it was deleted, and so nobody may have one of its name.
        MlflowException: the store does not answer.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location()))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # else somebody else was just making it
                raise
    if found.lifecycle_stage != "active":
        raise TrainingError(
            f"the experiment {name} was deleted in MLflow",
            note="until it is removed for good no other may be called so",
            hint=mlflow("experiments", "restore", "--experiment-id", found.experiment_id),
        )
    return str(found.experiment_id)


def mlflow(*arguments: str) -> str:
    """Return a command of MLflow's own, as one types it for this store."""
    store = "" if named() else f"MLFLOW_TRACKING_URI={shlex.quote(_ours())} "
    return f"{store}mlflow {shlex.join(arguments)}"


def files_of(client: "MlflowClient", run_id: str) -> "ArtifactRepository":
    """Return the artifacts of a run, to be listed, read and written where this process finds them."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    address = str(client.get_run(run_id).info.artifact_uri)
    if client.tracking_uri == _ours():
        address = artifact_roots.moved(database(), _files()).now(address)
    return get_artifact_repository(address, tracking_uri=client.tracking_uri)


def upload(client: "MlflowClient", run_id: str, path: Path, folder: str) -> None:
    """Upload a file, or what is in a folder, into a folder of the run's artifacts.

    A server answers when it has handed a file on to a bucket, say: each may take a second for a megabyte longer than
    other requests, or MLflow would send it again, and again.

    Raises:
        MlflowException: the store does not take it.
    """
    files = files_of(client, run_id)
    if path.is_dir():
        with _longer(max((file.stat().st_size for file in path.rglob("*") if file.is_file()), default=0)):
            files.log_artifacts(str(path), folder)
    else:
        with _longer(path.stat().st_size):
            files.log_artifact(str(path), folder)


@contextmanager
def _longer(size_bytes: int) -> Iterator[None]:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    before = os.environ.get(_TIMEOUT)
    os.environ[_TIMEOUT] = str(MLFLOW_HTTP_REQUEST_TIMEOUT.get() + size_bytes // _SLOWEST)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TIMEOUT]
        else:
            os.environ[_TIMEOUT] = before


def _current_user(server: str) -> str | None:
    """Ask the server whose the credentials are that MLflow sends: a name in the environment may be anybody's."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = http_request(
        get_default_host_creds(server), _CURRENT_USER, "GET", timeout=_ASKED_S, max_retries=0, raise_on_status=False
    )
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return None
    try:
        return str(answer.json()["user"]["username"])
    except (ValueError, KeyError, TypeError):
        raise MlflowException(f"{answer.status_code} for {_CURRENT_USER}: {answer.text[:200]}") from None


def _ours() -> str:
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(database())).render_as_string()  # a path may have % and ? in it


def _files() -> Path:
    return layout.artifacts() / _FILES


def _outside() -> Path | None:
    """Return the path that the artifacts folder has outside of a container in which it is mounted."""
    outside = os.environ.get("ARTIFACTS_OUTSIDE")
    return Path("/", outside) if outside else None
