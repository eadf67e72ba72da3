"""As many releases as one likes: copies of one that was published, each a network under a name of its own.

The release may be of an older commit, with whatever schema its manifest has; its ensemble and steps stay behind.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts import bundle, golden, manifest, model_config, repository


def write(version: Path, root: Path, count: int) -> list[str]:
    """Write copies of the release in the directory `version` into the new repository `root`; return their names."""
    model = version.parent
    names = [f"{model.name}_{number}" for number in range(1, count + 1)]
    others = {path.name for path in model.iterdir() if path.name.isdecimal() or path.name.startswith(".")}
    for name in names:
        shutil.copytree(model, root / name, ignore=lambda _, found: others.intersection(found))
        _rename_configs(root / name, model.name, name)
        shutil.copytree(version, root / name / "1")
        _rename(root / name / "1", model.name, name)
    return names


def publish_again(model: Path) -> None:
    """Publish a copy of a model's version 1 as its next one."""
    with repository.new_version(model) as staged:
        shutil.copytree(model / "1", staged.directory, dirs_exist_ok=True)
        _describe(staged.directory, {"version": staged.version})


def _rename(version: Path, old: str, new: str) -> None:
    """Make a version of the model `old` one of `new`, which is served by itself."""
    (version / manifest.SIGNATURE).unlink(missing_ok=True)
    if (version / golden.FILE_NAME).is_file():
        requests = [request for request in golden.read(version) if request.model == old]
        golden.write([replace(request, model=new) for request in requests], version)
    sealed = (version / bundle.FOLDER).is_dir()
    if sealed:
        for folder in [path for path in (version / bundle.FOLDER).iterdir() if path.name != old]:
            shutil.rmtree(folder)
        (version / bundle.FOLDER / old).rename(version / bundle.FOLDER / new)
        _rename_configs(version / bundle.FOLDER / new, old, new)
    _describe(version, {"model": new, "version": 1, **({"models": [new]} if sealed else {})})


def _rename_configs(folder: Path, old: str, new: str) -> None:
    for path in model_config.paths(folder):
        text = path.read_text().replace(f'name: "{old}"', f'name: "{new}"', 1)
        path.unlink()  # what lies in a bundle is read-only
        path.write_text(text)


def _describe(version: Path, changes: Mapping[str, Any]) -> None:
    """Change a manifest as JSON has it, so that one of an older schema keeps that; and list the files anew."""
    path = version / manifest.FILE_NAME
    files = [{"path": f.path, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in manifest.files_of(version)]
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes, "files": files}))
