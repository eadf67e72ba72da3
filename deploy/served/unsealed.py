"""What a server is given as it lies in the model repository: no export has sealed it, so no signature covers it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from contracts import manifest, model_config
from contracts.errors import ManifestError
from deploy.served import assemble


def names(served: Path) -> list[str]:
    """List the models in a private repository that lie there unsealed; of a release from before bundles its network.

    Nothing is known of them where this process may not look, or while the repository is made anew.
    """
    if not os.access(served, os.R_OK | os.X_OK):
        return []
    found = list[str]()
    with suppress(FileNotFoundError):
        for config in sorted(served.glob(f"*/{model_config.FILE_NAME}")):
            folder = config.parent
            network = assemble.owner(folder)
            if network is None or (network == folder.name and not _is_sealed(folder)):
                found.append(folder.name)
    return found


def told(served: Path) -> list[str]:
    """Say in a line which models are unsealed; no line where none is."""
    found = names(served)
    return [line(found)] if found else []


def line(models: Sequence[str]) -> str:
    """Say that these are unsealed."""
    return f"unsealed, served as they lie in the repository: {', '.join(models)}"


def _is_sealed(network: Path) -> bool:
    for described in network.glob(f"*/{manifest.FILE_NAME}"):
        with suppress(ManifestError):
            return bool(manifest.read(described.parent).models)
    return False
