"""What the typed door is made of: everything is given to it, so that each part can be another one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from fastapi import Request

from gateway.access.access import Access
from gateway.brain.decide import Brain
from gateway.caller import Caller
from gateway.refusals import MALFORMED
from gateway.settings.schema import Settings
from gateway.typed.idempotency import Keeper
from gateway.typed.known.catalog import Catalog

if TYPE_CHECKING:
    from store.keys import Keys


@dataclass(frozen=True)
class Parts:
    """The parts of the typed door.

    Attributes:
        keys: Of the store, for who administers them; None: there is no store.
    """

    settings: Settings
    access: Access
    brain: Brain
    catalog: Catalog
    keeper: Keeper
    keys: "Keys | None" = None


def parts_of(request: Request) -> Parts:
    """Return the parts of the door that a request came to."""
    return cast(Parts, request.app.state.parts)


async def caller_of(request: Request) -> Caller:
    """Return who sends a request.

    Raises:
        Refusal: nobody may, or it says so twice: a proxy may have looked at the other one.
    """
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise MALFORMED("the header Authorization is there twice")
    return await parts_of(request).access.check(given[0] if given else None)
