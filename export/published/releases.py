"""The releases of a model repository, parked ones among them, and the state of each."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts import layout, manifest, repository
from contracts.names import RULE, is_model_name
from export.errors import ExportError

# serving: the newest that is not parked, which a server of this repository serves; superseded: older than that one;
# refused: parked, as a server did not take it.
State = Literal["serving", "superseded", "parked", "refused"]


@dataclass(frozen=True)
class Release:
    """A version of a network, and where it lies."""

    network: str
    version: int
    directory: Path
    state: State
    refusal: str | None = None  # why a server did not take it

    @property
    def has_manifest(self) -> bool:
        return (self.directory / manifest.FILE_NAME).is_file()


def every(root: Path, network: str | None = None) -> list[Release]:
    """List the releases of a repository, or of one network of it: oldest first.

    Raises:
        ExportError: no model can be called that.
    """
    if network is not None:
        _check_name(network)
    folders = sorted(path for path in root.glob("*") if path.is_dir() and network in (None, path.name))
    return [release for folder in folders for release in _of(folder)]


def one(root: Path, network: str, version: int | None) -> Release:
    """Find a release, parked or not; by default the newest that is not parked.

    Raises:
        ExportError: there is no such release.
    """
    _check_name(network)
    found = _found(root / network)
    if version is None:
        version = found.serving
    if version not in found.all:
        raise ExportError(
            f"{network} has no version {version or 'at all'} in {layout.shown(root)}",
            note=f"versions: {', '.join(map(str, found.all)) or 'none'}",
            hint="python -m export list",
        )
    return found.release(version)


@dataclass(frozen=True)
class _Found:
    """The versions of a model's folder, which is read once, however many there are."""

    folder: Path
    published: Sequence[int]
    parked: Collection[int]

    @property
    def all(self) -> list[int]:
        return sorted({*self.published, *self.parked})

    @property
    def serving(self) -> int:
        return max(self.published, default=0)

    def release(self, version: int) -> Release:
        refusal = repository.refusal(self.folder, version)
        state: State = "serving" if version == self.serving else "superseded"
        if version in self.parked:
            state = "parked" if refusal is None else "refused"
        return Release(self.folder.name, version, repository.directory(self.folder, version), state, refusal)


def _found(folder: Path) -> _Found:
    return _Found(folder, repository.versions(folder), frozenset(repository.parked(folder)))


def _of(folder: Path) -> Iterator[Release]:
    found = _found(folder)
    for version in found.all:
        release = found.release(version)
        # What holds weights was published, and has to have its manifest; the Python models are git's.
        if release.has_manifest or any(path.suffix in (".onnx", ".plan") for path in release.directory.iterdir()):
            yield release


def _check_name(network: str) -> None:
    if not is_model_name(network):
        raise ExportError(f"a model cannot be called {network!r}", note=f"a name has {RULE}")
