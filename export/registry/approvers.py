"""Who may approve, on a MLflow server with accounts: who may write into the family's ledger and move its aliases."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from export.errors import ApprovalError
from export.registry import ledger
from training import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

_GRANT = "/api/3.0/mlflow/users/permissions/grant"
_TIMEOUT_S = 30


def allow(client: "MlflowClient", family: str, names: Sequence[str]) -> None:
    """Make a family's ledger, where nobody has yet, and let accounts write into it.

    To revoke an approval that was the only one takes an alias away, for which MLflow asks that one may manage the
    registered model.

    Raises:
        ApprovalError: the server has no accounts, or the caller is not its administrator; or it does not know one.
        MlflowException: there is no such registered model, or the store does not answer.
    """
    if tracking.account(sure=True).mlflow is None:
        raise ApprovalError(
            "MLflow's store has no accounts: whoever may write into it may approve",
            note="the rules of configs/approval.toml hold all the same",
            hint="deploy/mlflow/compose.yaml is a server with accounts",
        )
    client.get_registered_model(family)
    experiment = ledger.begin(client, family)
    for name in names:
        _grant(client, name, "experiment", experiment, "EDIT")
        _grant(client, name, "registered_model", family, "MANAGE")


def _grant(client: "MlflowClient", name: str, kind: str, resource: str, permission: str) -> None:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    told = {"username": name, "resource_type": kind, "resource_id": resource, "permission": permission}
    answer = http_request(
        get_default_host_creds(client.tracking_uri),
        _GRANT,
        "POST",
        json=told,
        timeout=_TIMEOUT_S,
        raise_on_status=False,
    )
    if answer.status_code != HTTPStatus.OK:
        raise ApprovalError(
            f"MLflow does not let {name} have {permission} on the {kind.replace('_', ' ')} {resource}",
            note=answer.text.strip()[:300],
            hint="run this as an administrator of the server, for accounts that it knows",
        )
