"""What has to hold of a release before it is approved: its files, its gates, and who approves it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from contracts import manifest, signing
from contracts.errors import ManifestError, SignatureError
from contracts.manifest import Gate, Manifest
from contracts.trust import account as accounts
from contracts.trust import identity
from contracts.trust.account import Account
from export.errors import ApprovalError
from export.registry import versions
from export.registry.rules import Environment
from training import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Checked:
    """A registered release whose files are those of its manifest."""

    version: str  # of the registered model
    digest: str  # of the manifest
    release: Manifest
    signed: bool  # and by whom VERIFY_KEY or VERIFY_CHAIN names

    @property
    def name(self) -> str:
        return f"{self.release.model} version {self.release.version}"

    @property
    def figures(self) -> dict[str, float]:
        """What it scores, each file that is served, and how many gates it passed."""
        told = self.release
        scores = {choice.precision: told.variant_for(choice.file).score for choice in told.choices}
        metric = told.metric.name if told.metric is not None else "score"
        found = {f"{metric}, {precision}": score for precision, score in scores.items() if score is not None}
        if told.reference_score is not None:
            found[f"{metric}, reference"] = told.reference_score
        return {**found, "gates passed": float(len([*gates(told)]))}


def files(client: "MlflowClient", found: "ModelVersion") -> Checked:
    """Fetch a registered release and hold it against its manifest and, where a key is known, its signature.

    Raises:
        ApprovalError: no export registered it, its files were lost or changed, or it is not signed as it has to be.
    """
    name, digest = f"models:/{found.name}/{found.version}", found.tags.get(versions.DIGEST)
    if digest is None or not found.run_id:
        raise ApprovalError(
            f"{name} is no release", note="it was registered by hand, and nothing was proven", hint=_export(found.name)
        )
    again = f"python -m export register {found.tags.get('model', 'MODEL')} {found.tags.get('release_version', '')}"
    if not versions.has_run(client, found):
        raise ApprovalError(
            f"the run of {name} was removed from MLflow, and its files with it", hint=f"register it anew: {again}"
        )
    stored = tracking.files_of(client, found.run_id)
    if not stored.list_artifacts(versions.FOLDER):
        raise ApprovalError(f"the files of {name} are not in MLflow", hint=f"log them again: {again}".strip())
    trust = signing.trust_from_environment()
    with TemporaryDirectory(prefix="approve-") as scratch:
        directory = Path(stored.download_artifacts(versions.FOLDER, scratch))
        try:
            if (lies := manifest.sha256(directory / manifest.FILE_NAME)) != digest:
                raise ManifestError("its manifest is another one", note=f"SHA-256 {lies}, registered was {digest}")
            told = manifest.read(directory)
            identity.verify(directory, told.model, told.version, trust)
        except (ManifestError, SignatureError, OSError) as error:
            raise ApprovalError(
                f"{name} is not what was exported: {str(error).replace(scratch, '')}", hint=_export(found.name)
            ) from error
    if told.family != found.name:
        raise ApprovalError(f"{name} is a release of another family", note=f"its manifest says {told.family}")
    return Checked(str(found.version), digest, told, trust is not None)


def gates(release: Manifest) -> Iterator[tuple[str, Gate]]:
    """Yield every gate of what is served, and whose it is: of the release, of each chosen variant and its engine."""
    yield from (("the release", gate) for gate in release.gates)
    for choice in release.choices:
        variant = release.variant_for(choice.file)
        engine = choice.engine or variant.engine
        yield from ((choice.file, gate) for gate in variant.gates)
        yield from ((f"{choice.file}, engine", gate) for gate in (engine.gates if engine else ()))


def proven(checked: Checked) -> None:
    """See that a release passed its gates, the serve gate among them.

    Raises:
        ApprovalError: it did not, with each gate; or nothing about it is proven.
    """
    release = checked.release
    failed = [f"{whose}: {gate}" for whose, gate in gates(release) if not gate.passed]
    if failed:
        raise ApprovalError(
            f"{checked.name} did not pass its gates", note="; ".join(failed), hint=_export(release.family)
        )
    if not release.choices or not any(True for _ in gates(release)):
        raise ApprovalError(
            f"nothing about {checked.name} is proven",
            note="it was sealed as it lay there, without a reference",
            hint="docs/how-to/bring-your-own-graph.md",
        )
    if release.served is None:
        raise ApprovalError(
            f"{checked.name} was not yet served",
            note="no Triton has loaded it and answered its golden requests",
            hint="export it again without --no-serve, on a machine that has a server",
        )


def apart(client: "MlflowClient", checked: Checked, approver: Account, environment: Environment,
          shared: frozenset[str]) -> tuple[Account | None, tuple[str, ...]]:  # fmt: skip
    """See that the approver is not the one that trained a release.

    A graph that was trained elsewhere has no trainer here: whoever exported it stands for it.

    Returns:
        Who trained it, None where nobody wrote that down; and what the environment's rules let pass.

    Raises:
        ApprovalError: they are one, or cannot be told apart.
    """
    trainer = _trainer(client, checked.release)
    verdict = "unknown" if trainer is None else accounts.compare(approver, trainer, shared)
    if verdict == "other":
        return trainer, ()
    if environment.by_its_trainer:
        return trainer, ("approved by its trainer" if verdict == "same" else "who trained it is not known",)
    if verdict == "same":
        raise ApprovalError(
            f"whoever trained {checked.name} cannot approve it for {environment.name}",
            note=f"it was trained by {trainer}, and this command runs as {approver}",
            hint=f"somebody else approves it, or a commit allows it: by_its_trainer for {environment.name} in "
            "configs/approval.toml",
        )
    raise ApprovalError(
        f"it cannot be told whether {approver} trained {checked.name}",
        note=f"it was trained by {trainer or 'an account that nobody wrote down'}"
        + (f"; {', '.join(sorted(shared))}: accounts of several people" if shared else ""),
        hint=f"train again and {_export(checked.release.family)}; each person needs an account, here or at MLflow",
    )


def _trainer(client: "MlflowClient", release: Manifest) -> Account | None:
    source = release.source
    if source.trained_by is not None:
        return source.trained_by
    if source.mlflow_run_id is None:
        return release.exported_by
    from mlflow.exceptions import MlflowException

    try:  # before accounts were written down MLflow's client noted one
        user = client.get_run(source.mlflow_run_id).data.tags.get("mlflow.user")
    except MlflowException:
        return None
    return Account(user) if user else None


def _export(family: str) -> str:
    return f"export it again: python -m export {family}"
