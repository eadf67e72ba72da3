"""Folders of a model repository that are no models, such as `common/`: what models read as `../common`.

They belong to no release: those have all that they need of their own. They are copied, so that what read them goes on
to, unless they are large: somebody's datasets are no part of what is served.
"""

from collections.abc import Callable
from pathlib import Path

from contracts import copying, model_config, repository, signing
from contracts.errors import FolderError
from contracts.names import is_model_name
from deploy.served import private

_MOST_BYTES = 64 << 20


def names(root: Path) -> list[str]:
    """List the folders of the repository `root` that are no models: without a configuration and without a version."""
    folders = (path for path in root.iterdir() if path.is_dir() and is_model_name(path.name))
    return sorted(path.name for path in folders if not _is_model(path))


def refresh(
    root: Path,
    served: Path,
    same: Callable[[Path, Path], bool],
    say: Callable[[str], None],
    trust: signing.Trust | None,
) -> list[str]:
    """Copy what was changed of those folders into the private repository `served`; return their names.

    Args:
        same: Tells whether two copies are.
        say: Is told what is not copied, and why.
        trust: What releases must be signed with; no signature covers these folders, so they are left out then.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    changed = []
    for name in names(root):
        if trust is not None:
            say(f"  {name}, no model, is not copied: no signature covers it")
            continue
        if _is_larger(root / name, _MOST_BYTES):
            say(f"  {name}, no model and over {_MOST_BYTES >> 20} MB, is not copied: no model finds it as ../{name}")
            continue
        with private.scratch(served) as scratch:
            try:
                copying.copy(root / name, scratch / "new", outside=True)
            except FolderError as error:
                say(f"  {name}, no model, is not copied: {error}")
                continue
            if (served / name).is_dir():
                if same(served / name, scratch / "new"):
                    continue
                (served / name).rename(scratch / "old")
            (scratch / "new").rename(served / name)
        changed.append(name)
    return changed


def _is_model(folder: Path) -> bool:
    return (folder / model_config.FILE_NAME).is_file() or bool(repository.versions(folder))


def _is_larger(folder: Path, limit: int) -> bool:
    size = 0
    for path in folder.rglob("*"):
        size += path.stat().st_size if path.is_file() else 0
        if size > limit:
            return True
    return False
