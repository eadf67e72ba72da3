"""Who asks, of the Authorization header: a key or a token, and what it may."""

from dataclasses import replace

from gateway.access.caller import Caller
from gateway.access.limits import Limits
from gateway.access.ring import Ring
from gateway.access.scopes import read_all
from gateway.access.tokens import Tokens
from gateway.refusals import NO_KEY, NOT_ALLOWED

NOBODY = Caller(None, "nobody", read_all(("infer:*", "read:*", "feedback:*")))
_KEYS = "gk_"


class Access:
    """Tells who asks.

    Args:
        tokens: None: there is no issuer, and keys alone are taken.
        required: Whether nobody may ask without one.
        limits: Of keys that have none of their own.
    """

    def __init__(
        self, ring: Ring, tokens: Tokens | None = None, *, required: bool = True, limits: Limits | None = None
    ) -> None:
        self._ring, self._tokens, self._required, self._limits = ring, tokens, required, limits or Limits()

    async def check(self, authorization: str | None) -> Caller:
        """Return whom the value of an Authorization header stands for.

        Raises:
            Refusal: it is missing, or stands for nobody.
        """
        if authorization is None:
            if self._required:
                raise NO_KEY("the request has no Authorization header")
            return NOBODY
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise NO_KEY("the Authorization header is not Bearer KEY")
        if self._tokens is not None and not given.startswith(_KEYS) and given.count(".") == 2:
            found = await self._tokens.caller_of(given)
        else:
            found = self._ring.caller_of(given)
        if isinstance(found, str):
            raise NO_KEY(found)
        return found if found.limits.windows else replace(found, limits=self._limits)

    def demand(self, caller: Caller, action: str, model: str) -> None:
        """See that a caller may do something.

        Raises:
            Refusal: it may not.
        """
        if not caller.may(action, model):
            raise NOT_ALLOWED(f"the key {caller.name} has no scope {action}:{model}")
