"""Who may approve what, and the environments that there are: configs/approval.toml, which a team changes by commits."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import layout
from export.errors import ApprovalError

CHAMPION = "champion"  # the alias of what the last environment has
_NAME = re.compile(r"(?!v\d+$)[a-z][a-z0-9_-]{0,63}")  # MLflow keeps v1, v2, … for versions
_TAKEN = frozenset({CHAMPION, "challenger", "latest"})
_KEYS = {"by_its_trainer": bool, "after": str}


@dataclass(frozen=True)
class Environment:
    """Where a release is approved for."""

    name: str
    by_its_trainer: bool = False  # whether the account that trained it may approve it
    after: str | None = None  # another environment, for which it has to have been approved before
    champion: bool = False  # whether what it has is also the champion

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that follow it, its own first."""
        return (self.name, CHAMPION) if self.champion else (self.name,)


@dataclass(frozen=True)
class Rules:
    """The environments in the order in which a release goes through them."""

    environments: tuple[Environment, ...]
    shared_accounts: frozenset[str] = frozenset()  # names that several people use

    def environment(self, name: str | None) -> Environment:
        """Return the environment of that name, the last one where none is given.

        Raises:
            ApprovalError: there is none.
        """
        for environment in self.environments:
            if environment.name == name:
                return environment
        if name is not None:
            known = ", ".join(environment.name for environment in self.environments)
            raise ApprovalError(f"there is no environment {name!r}", note=f"there are: {known}", hint=_edit())
        return self.environments[-1]


def read(path: Path) -> Rules:
    """Read the rules.

    Raises:
        ApprovalError: they are missing, or say what cannot be; nothing is approved by half of them.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # tomllib's own is a ValueError
        raise _unreadable(path, str(error)) from None
    shared, environments = raw.pop("shared_accounts", []), raw.pop("environments", None)
    if raw:
        raise _unreadable(path, f"nothing is called {', '.join(raw)}")
    if not (isinstance(shared, list) and all(isinstance(name, str) for name in shared)):
        raise _unreadable(path, "shared_accounts is not a list of names")
    if not (isinstance(environments, dict) and environments):
        raise _unreadable(path, "it has no [environments.NAME]")
    last = [*environments][-1]
    read = tuple(_environment(path, name, told, champion=name == last) for name, told in environments.items())
    for position, environment in enumerate(read):
        if environment.after is not None and environment.after not in {e.name for e in read[:position]}:
            raise _unreadable(path, f"{environment.name} is after {environment.after!r}, which is no earlier one")
    return Rules(read, frozenset(shared))


def _environment(path: Path, name: str, told: Mapping[str, Any], *, champion: bool) -> Environment:
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise _unreadable(path, f"an environment cannot be called {name!r}")
    if not isinstance(told, dict) or any(not isinstance(told[key], _KEYS.get(key, ())) for key in told):
        expected = ", ".join(f"{key} ({kind.__name__})" for key, kind in _KEYS.items())
        raise _unreadable(path, f"[environments.{name}] takes {expected}")
    return Environment(name, champion=champion, **told)


def _unreadable(path: Path, note: str) -> ApprovalError:
    return ApprovalError(f"{layout.shown(path)} cannot be read as rules of approval", note=note, hint=_edit())


def _edit() -> str:
    return "docs/how-to/approve.md says what stands in configs/approval.toml; APPROVAL_RULES names another file"
