"""What was published of a pipeline's checkpoint, kept where DVC finds it: the release itself is no part of the data."""

import json
from pathlib import Path

from contracts import layout, manifest, repository
from training import families
from training.data.folders import replaced
from training.data.kept import CHECKPOINT
from training.errors import DataError

RELEASE = "release.json"


def write(family: str, trained: Path, into: Path) -> str:
    """Write the newest release that was made of the checkpoint which was kept; return which it is.

    Raises:
        DataError: there is none of it.
        ManifestError: a release cannot be read.
    """
    model = families.spec(family).model
    folder, digest = layout.model_repository() / model, manifest.sha256(trained / CHECKPOINT)
    for version in reversed(repository.versions(folder)):
        release = manifest.read(repository.directory(folder, version))
        if release.source.sha256 == digest:
            break
    else:
        raise DataError(
            f"no release of {model} was made of {layout.shown(trained / CHECKPOINT)}",
            hint=f"python -m export {family} --checkpoint {layout.shown(trained / CHECKPOINT)}",
        )
    told = {
        "model": model,
        "version": version,
        "scores": {variant.precision: variant.score for variant in release.variants},
        "files": {file.path: file.sha256 for file in release.files},
    }
    with replaced(into) as made:
        (made / RELEASE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return f"version {version} of {model}"
