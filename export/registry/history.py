"""What a family's environments have, what was approved, and where MLflow's aliases say something else."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.registry import ledger, versions
from export.registry.ledger import Entry, Ledger
from export.registry.rules import Environment, Rules

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class State:
    """What an environment has."""

    environment: Environment
    entry: Entry | None  # the approval that stands; None: there is none
    faults: tuple[str, ...]  # where an alias, or the version, is not what was approved
    deleted: bool = False  # in MLflow, so that no alias can be at it

    @property
    def version(self) -> str | None:
        return self.entry.version if self.entry else None


@dataclass(frozen=True)
class History:
    """Everything about the approvals of a family."""

    family: str
    challenger: str | None  # what was exported last
    states: tuple[State, ...]
    ledger: Ledger

    @property
    def faults(self) -> list[str]:
        return [fault for state in self.states for fault in state.faults]


def read(client: "MlflowClient", family: str, rules: Rules) -> History:
    """Read a family's history, and hold its aliases against it. Nothing is changed.

    Raises:
        MlflowException: there is no such registered model, or the store does not answer.
    """
    aliases = {alias: str(version) for alias, version in client.get_registered_model(family).aliases.items()}
    there = {str(found.version) for found in client.search_model_versions(f"name = '{family}'")}
    known = ledger.read(client, family)
    states = tuple(_state(environment, known, aliases, there) for environment in rules.environments)
    return History(family, aliases.get(versions.CHALLENGER), states, known)


def _state(environment: Environment, known: Ledger, aliases: dict[str, str], there: set[str]) -> State:
    standing = known.stack(environment.name)
    entry = standing[-1] if standing else None
    wanted, faults = entry.version if entry else None, []
    if deleted := wanted is not None and wanted not in there:
        faults.append(f"{environment.name}: version {wanted} was approved, and deleted in MLflow since")
    else:
        for alias in environment.aliases:
            if (has := aliases.get(alias)) != wanted:
                said = f"version {has}" if has else "no version"
                approved = f"version {wanted} was" if wanted else "nothing was"
                faults.append(f"the alias {alias} is at {said}, and {approved} approved for {environment.name}")
    return State(environment, entry, tuple(faults), deleted)
