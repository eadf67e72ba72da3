"""Keys as who administers them sees them: without their secrets, and with scopes and limits that were checked."""

import time
from datetime import UTC, datetime
from typing import Any

from gateway.access import ring, scopes
from gateway.errors import KeysError
from gateway.limits import Limits
from store.keys import Key

Shown = dict[str, Any]


def described(key: Key) -> Shown:
    """Return a key without its secret, for JSON."""
    now = time.time_ns()
    until = key.previous_until if key.previous_until and key.previous_until > now else None
    return {
        "id": key.id,
        "name": key.name,
        "scopes": [*key.scopes],
        "limits": dict(key.limits),
        "state": key.state(now),
        "created": _moment(key.created),
        "expires": _moment(key.expires),
        "revoked": _moment(key.revoked),
        "rotated_until": _moment(until),
    }


def checked(texts: list[str], limits: dict[str, Any]) -> dict[str, Any]:
    """Check scopes and limits; return the limits as they are kept.

    Raises:
        KeysError: they are none.
    """
    scopes.read_all(texts)
    own = dict(limits)
    priority = own.pop(ring.PRIORITY, None)
    kept: dict[str, Any] = Limits.of(own).kept()
    if priority is None:
        return kept
    if str(priority) not in ("1", "2", "3"):
        raise KeysError(f"{ring.PRIORITY} is {priority!r}", note="1 is the most urgent class, 3 the least")
    return {**kept, ring.PRIORITY: int(priority)}


def _moment(ns: int | None) -> str | None:
    return None if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds")
