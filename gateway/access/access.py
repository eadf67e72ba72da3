"""Who asks, of the Authorization header: a key or a token; what it may, and what it has left."""

from gateway.access.quotas import GoneError, Quotas
from gateway.access.ring import Ring
from gateway.access.scopes import DEFAULT, read_all
from gateway.access.tokens import Tokens
from gateway.caller import Caller
from gateway.errors import Refusal
from gateway.refusals import NO_KEY, NO_STORE, NOT_ALLOWED, OVER_LIMIT, OVER_QUOTA, UNCOUNTED

NOBODY = Caller(None, "nobody", read_all((*DEFAULT, "metrics:admin")))  # who needs no key, on the machine itself
_KEYS = "gk_"
_CHALLENGE = {"www-authenticate": 'Bearer realm="gateway"'}


class Access:
    """Tells who asks.

    Args:
        tokens: None: there is no issuer, and keys alone are taken.
        required: Whether nobody may ask without one.
    """

    def __init__(self, ring: Ring, quotas: Quotas, tokens: Tokens | None = None, *, required: bool = True) -> None:
        self._ring, self._quotas, self._tokens, self._required = ring, quotas, tokens, required

    async def check(self, authorization: str | None) -> Caller:
        """Return whom the value of an Authorization header stands for.

        Raises:
            Refusal: it is missing, or stands for nobody; 503 while nobody knows the keys.
        """
        if authorization is None:
            if self._required:
                raise _no_key("the request has no header Authorization")
            return NOBODY
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise _no_key("the header Authorization is not Bearer KEY")
        if self._tokens is not None and not given.startswith(_KEYS) and given.count(".") == 2:
            found = await self._tokens.caller_of(given)
            if isinstance(found, str):
                raise _no_key(found)
            return found
        if (caller := self._ring.caller_of(given)) is None:
            if self._ring.read_at is None:  # begun while the store is gone: no key is wrong for that
                raise NO_STORE("the keys have not been read yet", retry_after_s=1.0)
            raise _no_key("the key is not known, has expired or was revoked")
        return caller

    def permit(self, caller: Caller, model: str, action: str) -> None:
        """See that a caller may do something with a model.

        Raises:
            Refusal: it may not.
        """
        if not caller.may(action, model):
            raise NOT_ALLOWED(f"the key {caller.name!r} has no scope {model}:{action}")

    async def spend(self, caller: Caller, model: str, rows: int) -> dict[str, str]:
        """Count a request; return what its answer says of the quota.

        Raises:
            Refusal: there is none left, or never as much; or nobody can tell.
        """
        try:
            standing = await self._quotas.take(caller, rows)
        except GoneError:
            raise UNCOUNTED("what counts requests cannot be reached", retry_after_s=1.0) from None
        if standing.allowed or (window := standing.window) is None:
            return standing.headers
        what = f"{window.amount:,} {window.unit} in {window.seconds:,} s"
        if standing.retry_after is None:
            raise OVER_LIMIT(f"{rows:,} rows at once never fit into {what}: send fewer", headers=standing.headers)
        raise OVER_QUOTA(f"{what} are used up", retry_after_s=standing.retry_after, headers=standing.headers)


def _no_key(why: str) -> Refusal:
    return NO_KEY(why, headers=_CHALLENGE)
