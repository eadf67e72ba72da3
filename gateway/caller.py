"""Who asks."""

from dataclasses import dataclass, field

from gateway.access.scopes import Scope
from gateway.limits import Limits


@dataclass(frozen=True)
class Caller:
    """Whom a key or a token speaks for.

    Attributes:
        key_id: The key's public id, which records and metrics name; of an issuer's token `oidc:` and a hash of whom
            it speaks for; None where no key is asked for.
        scopes: What it may do with which models.
        limits: How much it may ask.
        priority_most: The highest class that it may ask for; 1 is the highest there is, 3 the lowest.
    """

    key_id: str | None
    name: str
    scopes: tuple[Scope, ...] = ()
    limits: Limits = field(default_factory=Limits)
    priority_most: int = 2

    def may(self, action: str, model: str) -> bool:
        """Tell whether one of the scopes allows an action on a model."""
        return any(scope.allows(action, model) for scope in self.scopes)
