"""Who asks: a key or a token that was checked."""

from dataclasses import dataclass, field

from gateway.access.limits import Limits
from gateway.access.scopes import Scope


@dataclass(frozen=True)
class Caller:
    """Whoever a key or a token stands for.

    Attributes:
        key_id: Under which quotas count and requests are recorded; None: keys are not asked for.
        name: For people.
        priority_most: The most urgent class that it may ask for; 1 is the most urgent.
    """

    key_id: str | None
    name: str
    scopes: tuple[Scope, ...] = ()
    limits: Limits = field(default_factory=Limits)
    priority_most: int = 1

    def may(self, action: str, model: str) -> bool:
        """Tell whether one of the scopes allows an action on a model."""
        return any(scope.allows(action, model) for scope in self.scopes)
