"""Approve a release for an environment, and take that back: look, write it into the ledger, move the aliases."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contracts.trust.account import Account
from export.errors import ApprovalError, RegistryError
from export.registry import checks, ledger, versions
from export.registry.checks import Checked
from export.registry.ledger import Entry, Ledger, TakenError
from export.registry.rules import Environment, Rules
from training import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_MOST = {"by": 200, "reason": 1000}  # characters


@dataclass(frozen=True)
class Decision:
    """What came of it."""

    number: int  # of the ledger's entry
    entry: Entry
    new: bool  # False: it was so already, and nothing was written
    replaced: Entry | None = None  # the approval that stood before


def approve(
    client: "MlflowClient", family: str, version: str | None, environment: Environment, rules: Rules,
    *, by: str, reason: str, say: Callable[[str], None],
) -> Decision:  # fmt: skip
    """Approve a version of a family's registered model, by default its challenger, for an environment.

    Raises:
        ApprovalError: there is no such version, it is not proven, this account may not, or somebody else was quicker.
        RegistryError: the store does not answer, or refuses.
    """
    _check_words(by=by, reason=reason)
    account, known = tracking.account(sure=True), ledger.read(client, family)
    found = _version(client, family, version or _challenger(client, family))
    version = str(found.version)
    if (standing := known.stack(environment.name)) and standing[-1].version == version:
        follow(client, family, environment)
        return Decision(_number(known, standing[-1]), standing[-1], new=False)
    if environment.after and version not in {entry.version for entry in known.stack(environment.after)}:
        raise ApprovalError(
            f"models:/{family}/{version} was not approved for {environment.after}",
            note=f"{environment.name} takes what was",
            hint=f"python -m export approve {family} --version {version} --environment {environment.after} …",
        )
    say(f"Checking the files and gates of models:/{family}/{version}")
    checked = checks.files(client, found)
    checks.proven(checked)
    for warning in checked.release.warnings:
        say(f"Warning: {warning}")
    trainer, remarks = checks.apart(client, checked, account, environment, rules.shared_accounts)
    entry = _entry(checked, environment, known, account, by, reason, trainer, remarks)
    return _write(client, family, environment, known, entry)


def revoke(
    client: "MlflowClient", family: str, environment: Environment, *, by: str, reason: str
) -> Decision:  # fmt: skip
    """Take the last approval for an environment back: it has again what it had before, as far as that still exists.

    Raises:
        ApprovalError: nothing is approved for it, or somebody else was quicker.
        RegistryError: the store does not answer, or refuses.
    """
    _check_words(by=by, reason=reason)
    account, known = tracking.account(sure=True), ledger.read(client, family)
    standing = known.stack(environment.name)
    if not standing:
        raise ApprovalError(f"nothing of {family} is approved for {environment.name}", hint=_history(family))
    there = {str(found.version) for found in client.search_model_versions(f"name = '{family}'")}
    back = next((e for e in reversed(standing[:-1]) if e.version in there and e.version != standing[-1].version), None)
    entry = Entry(
        action="revoke",
        environment=environment.name,
        version=back.version if back else None,
        before=standing[-1].version,
        by=by,
        reason=reason,
        account=account,
        at=_now(),
        release=back.release if back else "",
        manifest_sha256=back.manifest_sha256 if back else "",
        figures=back.figures if back else {},
        trained_by=back.trained_by if back else None,
    )
    return _write(client, family, environment, known, entry)


def follow(client: "MlflowClient", family: str, environment: Environment) -> None:
    """Move an environment's aliases to what the ledger says; again if somebody wrote into it meanwhile."""
    wanted = ledger.read(client, family).version(environment.name)
    while True:
        has = client.get_registered_model(family).aliases
        for alias in environment.aliases:
            if wanted is not None and str(has.get(alias)) != wanted:
                client.set_registered_model_alias(family, alias, wanted)
            elif wanted is None and alias in has:
                client.delete_registered_model_alias(family, alias)
        if (now := ledger.read(client, family).version(environment.name)) == wanted:
            return
        wanted = now


def _write(client: "MlflowClient", family: str, environment: Environment, known: Ledger, entry: Entry) -> Decision:
    """Write the entry behind what was known when it was decided; of another environment there may be more by now."""
    while True:
        try:
            ledger.append(client, family, known.next, entry)
        except TakenError:
            now = ledger.read(client, family)
            if now.of(environment.name) != known.of(environment.name):
                raise ApprovalError(
                    f"somebody else decided about {environment.name} at the same moment",
                    note=_told(now.of(environment.name)[-1]),
                    hint=f"look first: {_history(family)}",
                ) from None
            known = now
            continue
        _follow_at_last(client, family, environment, known.next)
        standing = known.stack(environment.name)
        return Decision(known.next, entry, new=True, replaced=standing[-1] if standing else None)


def _follow_at_last(client: "MlflowClient", family: str, environment: Environment, number: int) -> None:
    from mlflow.exceptions import MlflowException

    try:
        follow(client, family, environment)
    except MlflowException as error:
        raise RegistryError(
            f"entry {number} is written, but the aliases of {family} were not moved",
            note=str(error).strip().partition("\n")[0],
            hint=f"the aliases {', '.join(environment.aliases)} follow with the next approval, or: "
            f"python -m export history {family} --repair",
        ) from error


def _entry(
    checked: Checked, environment: Environment, known: Ledger, account: Account, by: str, reason: str,
    trainer: Account | None, remarks: tuple[str, ...],
) -> Entry:  # fmt: skip
    return Entry(
        action="approve",
        environment=environment.name,
        version=checked.version,
        before=known.version(environment.name),
        by=by,
        reason=reason,
        account=account,
        at=_now(),
        release=checked.name,
        manifest_sha256=checked.digest,
        figures=checked.figures,
        trained_by=trainer,
        remarks=(*remarks, *(("its signature was verified",) if checked.signed else ())),
    )


def _challenger(client: "MlflowClient", family: str) -> str:
    found = client.get_registered_model(family).aliases.get(versions.CHALLENGER)
    if found is None:
        raise ApprovalError(
            f"{family} has no challenger", hint=f"name one with --version, or: python -m export {family}"
        )
    return str(found)


def _version(client: "MlflowClient", family: str, version: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(family, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        there = sorted((str(v.version) for v in client.search_model_versions(f"name = '{family}'")), key=int)
        raise ApprovalError(
            f"models:/{family}/{version} does not exist, or was deleted in MLflow",
            note=f"versions: {', '.join(there) or 'none'}",
            hint=_history(family),
        ) from error


def _check_words(**said: str) -> None:
    """See that somebody put their name and a reason to it, as a line that a table can show."""
    for option, text in said.items():
        if not text.strip() or len(text) > _MOST[option] or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
            raise ApprovalError(
                f"--{option} is a line of text, 1 to {_MOST[option]} characters",
                note=f"found {len(text)} characters{'' if text.strip() else ', all blank'}",
            )


def _number(known: Ledger, entry: Entry) -> int:
    return next(number for number, other in known.entries.items() if other == entry)


def _told(entry: Entry) -> str:
    what = f"models:/…/{entry.version}" if entry.version else "nothing"
    return f"it has {what} now, by {entry.by} ({entry.account}): {entry.reason}"


def _history(family: str) -> str:
    return f"python -m export history {family}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
