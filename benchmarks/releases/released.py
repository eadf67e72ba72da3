"""The newest releases of a model repository, and which of them a model belongs to."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.errors import MeasurementError
from contracts import bundle, golden, layout, repository
from contracts.bundle import Bundle


def newest(root: Path) -> Iterator[Bundle]:
    """Yield the newest release of each network, by name; none where there is no such repository.

    Raises:
        ManifestError: one is damaged.
    """
    for folder in sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith(".")):
        if versions := repository.versions(folder):
            yield bundle.of(root, folder.name, versions[-1])


def asked(root: Path, model: str) -> Bundle:
    """Return the newest release that has golden requests for a model: an ensemble, or a network by itself.

    Raises:
        MeasurementError: none has.
        ManifestError: one is damaged.
    """
    for release in newest(root):
        if model in release.models and any(each.model == model for each in golden.read(release.directory)):
            return release
    told = f"{model} belongs to no release with golden requests in {layout.shown(root)}"
    raise MeasurementError(told, hint="python -m export makes one; --model names another")
