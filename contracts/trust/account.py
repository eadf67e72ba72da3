"""Who a command runs as, so that whoever approves a release can be told from whoever trained it.

Names alone: a uid says something on its own machine only. What the environment says (USER, LOGNAME) counts for nothing.
"""

import os
import pwd
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_LOGIN = Path("/proc/self/loginuid")  # the kernel's own: `sudo` and `su` do not change it
_NOBODY = 2**32 - 1  # a uid that is none: nobody has logged in, as in most containers


@dataclass(frozen=True)
class Account:
    """The names under which somebody is known. Plain values only, so that a checkpoint can hold it."""

    os: str  # of the operating system, by the effective uid: "alice"; "uid 4321" where that has no name
    login: str | None = None  # who logged in, where that is somebody else: alice, who is root by `sudo`
    mlflow: str | None = None  # at the MLflow server, as that told; None: it knows no accounts

    def __str__(self) -> str:
        login = f", logged in as {self.login}" if self.login else ""
        return f"{self.os}{login}{f', {self.mlflow} at MLflow' if self.mlflow else ''}"


def of_this_process(mlflow: str | None = None) -> Account:
    """Return who this process runs as.

    Args:
        mlflow: The account at the MLflow server, where that was asked.
    """
    name, login = _name(os.geteuid()), _login()
    return Account(name, login if login != name else None, mlflow)


def compare(one: Account, other: Account, shared: Collection[str]) -> Literal["same", "other", "unknown"]:
    """Tell whether two accounts are one person's.

    They are where any name of the same kind is in both. Names that several people use tell nobody from anybody.

    Args:
        shared: Those names, such as root in containers.
    """
    at_mlflow = [account.mlflow for account in (one, other) if account.mlflow and account.mlflow not in shared]
    here = [{account.os, account.login} - {None, *shared} for account in (one, other)]
    if len({*at_mlflow}) < len(at_mlflow) or here[0] & here[1]:
        return "same"
    return "other" if len(at_mlflow) == 2 or all(here) else "unknown"


def _login() -> str | None:
    try:
        uid = int(_LOGIN.read_text())
    except (OSError, ValueError):  # another system than Linux, or a kernel without it
        return None
    return None if uid == _NOBODY else _name(uid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
