"""What is left out of a server, also of what only its releases have: steps that git has no more, or that two share."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from deploy.served import assemble
from deploy.triton import released
from deploy.triton.released import LeftOut


def left_out(root: Path, served: Path, config_name: str | None, failed: Mapping[str, str]) -> list[LeftOut]:
    """List what is not served of the repository `root`, as `released.left_out` does, and of the releases in `served`.

    Args:
        served: The private repository of the server; nothing is known of it where this process may not look, or while
            it is made anew, as for a server that is restarted.
    """
    groups = released.left_out(root, config_name, failed)
    with suppress(FileNotFoundError):
        groups += _of_releases(root, served, config_name, failed, released.names(groups))
    return groups


def _of_releases(
    root: Path, served: Path, config_name: str | None, failed: Mapping[str, str], known: set[str]
) -> list[LeftOut]:
    if not os.access(served, os.R_OK | os.X_OK):
        return []
    sealed = {name: why for name, why in failed.items() if name not in known and assemble.owner(served / name)}
    groups = list[LeftOut]()
    for group in released.left_out(served, config_name, sealed):
        if group.failed and not known.issuperset(group.models):
            named = next((model for model in group.models if (root / model).is_dir()), None)
            groups.append(replace(group, command=f"python -m deploy reload {named}" if named else None))
    return groups
