"""The declaration and the tables of a release: written beside its graph, listed in its manifest, read again.

They lie in the version's directory, `tables/NAME.npz`, and are sealed and signed with everything else there.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from contracts import manifest, repository
from contracts.entities.declaration import Declaration
from contracts.entities.tables import Columns, Tables
from contracts.errors import ManifestError, SpecError
from contracts.manifest import Manifest
from contracts.samples import load_arrays, save_arrays

FOLDER = "tables"
_MOST_BYTES = 4 << 30  # that the columns of a table may take


def write(tables: Mapping[str, Columns], directory: Path) -> None:
    """Write tables into a version's directory; nothing where there are none."""
    if tables:
        (directory / FOLDER).mkdir()
    for name, columns in tables.items():
        save_arrays(_path(directory, name), columns)


def read(directory: Path) -> tuple[Declaration, Tables]:
    """Read what a release declares and the tables that it names, each as it was published.

    Raises:
        ManifestError: it declares nothing, or a table is missing, damaged or another one.
    """
    release = manifest.read(directory)
    if (declared := release.entities) is None:
        raise ManifestError(
            f"{release.model} version {release.version} takes no entities",
            note="its manifest declares none: it takes its inputs as they are",
            hint="python -m clients infer",
        )
    tables = {name: _table(directory, name, release) for name in declared.tables}
    try:
        return declared, Tables(declared, tables)
    except SpecError as error:
        raise ManifestError(f"the tables in {directory} are not what its manifest declares: {error}") from error


def find(root: Path, model: str) -> Path | None:
    """Find the newest release in a model repository that declares the entities of `model`: its version's directory.

    Raises:
        ManifestError: the manifest of a newest version is damaged.
    """
    own = root / model
    others = sorted(path for path in root.glob("*") if path.is_dir() and path != own and not path.name.startswith("."))
    for folder in (own, *others):
        versions = repository.versions(folder)
        if not versions or not (folder / str(versions[-1]) / manifest.FILE_NAME).is_file():
            continue
        declared = manifest.read(folder / str(versions[-1])).entities
        if declared is not None and declared.model == model:
            return folder / str(versions[-1])
    return None


def _table(directory: Path, name: str, release: Manifest) -> Columns:
    path = _path(directory, name)
    listed = {file.path: file for file in release.files}
    file = listed.get(path.relative_to(directory).as_posix())
    if file is None or not path.is_file() or manifest.sha256(path) != file.sha256:
        why = "it is not in the manifest" if file is None else "it is not what was published"
        raise ManifestError(
            f"{path}: {why if path.is_file() else 'it is missing'}", hint="take the whole version's directory along"
        )
    try:
        return load_arrays(path, _MOST_BYTES)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ManifestError(f"{path} is damaged", note=str(error) or type(error).__name__) from error


def _path(directory: Path, name: str) -> Path:
    return directory / FOLDER / f"{name}.npz"
