"""The ledger of a family's approvals: entries that are only ever added, one after the other, and never changed.

It is a run of the MLflow experiment "FAMILY approvals", an entry is a parameter of it: "000001", "000002", … MLflow
writes a parameter once: whoever comes second with the same number is refused, by the database itself. So of two
approvals at the same moment one is first, on whatever machines they are given, and no entry can be written over. It is
an experiment of its own so that a MLflow server with accounts tells who may approve: who may edit it.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from contracts.manifest import decode
from contracts.trust.account import Account
from export.errors import RegistryError
from training import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LONGEST = 6000  # characters of a parameter's value; MLflow refuses more, or cuts it
_NUMBER = re.compile(r"\d{6,9}")
_TAG = "approvals_of"  # of the run, and the family is its value


@dataclass(frozen=True)
class Entry:
    """What somebody decided about an environment."""

    action: Literal["approve", "revoke"]
    environment: str
    version: str | None  # of the registered model, which the environment has since; None: it has none any more
    before: str | None  # which it had
    by: str  # who answers for it, as they wrote it
    reason: str
    account: Account  # the command ran as
    at: str  # UTC, ISO 8601
    release: str = ""  # its model and version in the model repository; "" without one
    manifest_sha256: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)  # {"auc": 0.75, "gates passed": 42}
    trained_by: Account | None = None  # None: nobody wrote that down
    remarks: tuple[str, ...] = ()  # what the rules let pass
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))  # so that no two entries are alike


@dataclass(frozen=True)
class Ledger:
    """What stands in it at a moment: {number: entry}; None where somebody wrote what is none."""

    entries: Mapping[int, Entry | None]

    @property
    def next(self) -> int:
        return max(self.entries, default=0) + 1

    def of(self, environment: str) -> list[Entry]:
        """Return the entries of an environment, oldest first."""
        return [entry for entry in self.entries.values() if entry is not None and entry.environment == environment]

    def stack(self, environment: str) -> list[Entry]:
        """Return the approvals of an environment that stand, oldest first: the last one is what it has."""
        standing: list[Entry] = []
        for entry in self.of(environment):
            if entry.action == "approve":
                standing.append(entry)
            else:
                while standing and standing[-1].version != entry.version:
                    standing.pop()
        return standing

    def version(self, environment: str) -> str | None:
        """Return which version an environment has."""
        standing = self.stack(environment)
        return standing[-1].version if standing else None


class TakenError(Exception):
    """Somebody else has written the next entry meanwhile."""


def read(client: "MlflowClient", family: str) -> Ledger:
    """Read a family's ledger; an empty one where nothing was ever approved."""
    run = _find(client, family)
    params = run.data.params if run is not None else {}
    return Ledger({int(key): _entry(params[key]) for key in sorted(filter(_NUMBER.fullmatch, params), key=int)})


def append(client: "MlflowClient", family: str, number: int, entry: Entry) -> None:
    """Write an entry under the number that comes next.

    Raises:
        TakenError: that number is taken.
        RegistryError: it is too long; the ledger was deleted.
    """
    from mlflow.exceptions import MlflowException

    text = json.dumps(asdict(entry), ensure_ascii=False, separators=(",", ":"))
    if len(text) > LONGEST:
        raise RegistryError(
            "the entry is too long for MLflow",
            note=f"{len(text)} characters, at most {LONGEST}",
            hint="a shorter reason",
        )
    run = _find(client, family) or _make(client, family)
    key = f"{number:06d}"
    try:
        client.log_param(run.info.run_id, key, text)
    except MlflowException as error:
        found = client.get_run(run.info.run_id).data.params.get(key)
        if found is None:
            raise
        if found != text:
            raise TakenError from error


def begin(client: "MlflowClient", family: str) -> str:
    """Make a family's ledger where there is none; return the id of its experiment."""
    return str((_find(client, family) or _make(client, family)).info.experiment_id)


def experiment(family: str) -> str:
    """Return the name of the experiment that the ledger is in: who may edit it may approve."""
    return f"{family} approvals"


def _find(client: "MlflowClient", family: str) -> "Run | None":
    from mlflow.entities import LifecycleStage, ViewType

    found = client.get_experiment_by_name(experiment(family))
    if found is None:
        return None
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise _deleted(family, tracking.mlflow("experiments", "restore", "--experiment-id", found.experiment_id))
    runs = client.search_runs([found.experiment_id], f"tags.{_TAG} = '{family}'", ViewType.ALL, 1, ["start_time ASC"])
    if not runs:
        raise _deleted(
            family,
            "somebody made that experiment by hand, or emptied it: rename it",
        )
    if runs[0].info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise _deleted(family, tracking.mlflow("runs", "restore", "--run-id", runs[0].info.run_id))
    return runs[0]


def _make(client: "MlflowClient", family: str) -> "Run":
    """Make the ledger aside and name it then: names are unique, so of two that do so at once one has it."""
    from mlflow.exceptions import MlflowException

    aside = f"{experiment(family)}, being made {secrets.token_hex(8)}"
    made = client.create_experiment(aside, artifact_location=tracking.artifact_location())
    run = client.create_run(made, run_name=experiment(family), tags={_TAG: family})
    client.set_terminated(run.info.run_id)
    try:
        client.rename_experiment(made, experiment(family))
    except MlflowException:
        client.delete_experiment(made)
        found = _find(client, family)
        if found is None:
            raise
        return found
    return run


def _entry(text: str) -> Entry | None:
    try:
        return cast("Entry", decode(Entry, json.loads(text)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _deleted(family: str, hint: str) -> RegistryError:
    return RegistryError(
        f"the approvals of {family} were deleted in MLflow",
        note=f"they are kept in the experiment {experiment(family)!r}; nothing is approved without knowing what was",
        hint=hint,
    )
