"""The ids of sequences as Triton gets them: each caller has its own, whatever ids others chose."""

import hashlib

from gateway.caller import Caller
from gateway.triton.models import Model

_BYTES = 16
_SHORT = frozenset(("TYPE_INT32", "TYPE_UINT32"))


def own(caller: Caller, model: Model, given: int | str | None) -> int | str | None:
    """Return the id under which Triton knows a caller's sequence: an integer of an integer, a text of a text.

    Integers fit what the model takes for its ids: 63 bits, or 31 where its control is of 32.

    Args:
        given: The caller's own id; None: there is none, and that stays so.
    """
    if given is None:
        return given
    who = (caller.key_id, None if caller.key_id else caller.name)  # a token of an issuer has no key
    digest = hashlib.blake2b(repr((who, model.name, given)).encode(), digest_size=_BYTES)
    if isinstance(given, str):
        return digest.hexdigest()
    most = (1 << (31 if _control(model) in _SHORT else 63)) - 1
    return int.from_bytes(digest.digest()) % most + 1


def _control(model: Model) -> str | None:
    """Return the datatype in which a model is told the id; None: it is not."""
    for put in (model.config.get("sequence_batching") or {}).get("control_input") or ():
        for control in put.get("control") or ():
            if control.get("kind") == "CONTROL_SEQUENCE_CORRID":
                return str(control.get("data_type"))
    return None
