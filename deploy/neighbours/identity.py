"""Whom a server that root starts runs as.

By default that is a user whom no account and no other program has: 65524. `nobody` is shared by whatever else thinks
of it as powerless, and processes of one user can stop, trace and impersonate each other. Debian reserves 65000 to 65533
(Policy 9.2.2), systemd leaves 65520 to 65533 alone (UIDS-GIDS), and a container's 65536 users include it.
"""

import os
import pwd
import re
from dataclasses import dataclass
from typing import Self

from deploy.errors import SettingsError

VARIABLE = "SERVER_USER"  # what --user says, for all that starts a server: demo, drill, gate, benchmarks
_RESERVED = 65_524
_NUMERIC = re.compile(r"(?P<uid>[0-9]+)(:(?P<gid>[0-9]+))?")
_LARGEST = 2**32 - 2  # the next one means "leave it as it is"


@dataclass(frozen=True)
class Identity:
    """A user and a group; neither needs an account."""

    uid: int
    gid: int
    name: str  # as it was given

    @classmethod
    def of(cls, text: str) -> Self:
        """Find the user "NAME", "UID" or "UID:GID". A number without a group has its account's, else the same.

        Raises:
            SettingsError: there is no such user.
        """
        try:
            if (numbers := _NUMERIC.fullmatch(text)) is None:
                account = pwd.getpwnam(text)
                return cls(account.pw_uid, account.pw_gid, text)
            uid = int(numbers["uid"])
            found = cls(uid, int(numbers["gid"]) if numbers["gid"] else _group_of(uid), f"uid {text}")
        except KeyError as error:
            raise SettingsError(f"there is no user {text} on this machine") from error
        if max(found.uid, found.gid) > _LARGEST:
            raise SettingsError(f"there can be no user {text}: the largest number is {_LARGEST}")
        return found


def chosen(user: str | None) -> Identity:
    """Return whom root's server shall run as: `user`, else the environment's SERVER_USER, else the reserved one.

    Raises:
        SettingsError: there is no such user, or the reserved one is an account's here.
    """
    if given := user or os.environ.get(VARIABLE):
        return Identity.of(given)
    try:
        account = pwd.getpwuid(_RESERVED)
    except KeyError:
        return Identity(_RESERVED, _RESERVED, f"uid {_RESERVED}")
    raise SettingsError(
        f"the server should run as uid {_RESERVED}, which nobody has, and {account.pw_name} has it here",
        hint="choose another one: --user UID",
    )


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid
