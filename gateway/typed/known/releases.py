"""What a release says of itself beside what Triton does: card, score, entities and a golden request, from its folder.

A gateway that does not see the model repository does without.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clients.filling.entities import Entities
from contracts import golden, manifest
from contracts.errors import ProjectError
from contracts.golden import GoldenRequest
from contracts.manifest import Manifest


@dataclass(frozen=True)
class Release:
    """What is known of the release that serves a model; nothing, where its folder is not here.

    Attributes:
        entities: Fills the model's inputs from what a caller knows; None: it declares none.
        example: A request with the reference's answer.
    """

    manifest: Manifest | None = None
    entities: Entities | None = None
    example: GoldenRequest | None = None
    directory: Path | None = field(default=None, repr=False)

    def described(self) -> dict[str, Any]:
        """Return what callers are told, for JSON."""
        if (found := self.manifest) is None:
            return {}
        chosen = sorted({choice.precision for choice in found.choices})
        return {
            "family": found.family,
            "network": found.model,
            "release": found.version,
            "created_at": found.created_at,
            "task": found.task,
            "precisions": chosen,
            "reference_score": found.reference_score,
            "metric": found.metric.name if found.metric else None,
            "test_samples": found.test_samples,
            "card": asdict(found.card) if found.card else None,
        }


NOTHING = Release()


def find(repository: Path | None, model: str, version: str) -> Release:
    """Find the release in whose bundle a model of this version is. It reads files: not in an event loop."""
    if repository is None or not version.isdecimal():
        return NOTHING
    for path in sorted(repository.glob(f"*/{version}/{manifest.FILE_NAME}")):
        try:
            found = manifest.read(path.parent)
        except (ProjectError, OSError):
            continue
        if model in (found.model, *found.models):
            return Release(found, _entities(path.parent, model, found), _example(path.parent, model), path.parent)
    return NOTHING


def _entities(directory: Path, model: str, found: Manifest) -> Entities | None:
    if found.entities is None or found.entities.model != model:
        return None
    try:
        return Entities.of_release(directory)
    except (ProjectError, OSError):
        return None


def _example(directory: Path, model: str) -> GoldenRequest | None:
    try:
        requests = golden.read(directory)
    except (ProjectError, OSError):
        return None
    return next((request for request in requests if request.model == model), None)
