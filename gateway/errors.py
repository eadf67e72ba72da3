"""Why a request gets no answer of a model.

ProjectError
├── Refusal               the gateway's own answer: a status, and a reason that the caller may read
└── UpstreamError         what happened between the gateway and a Triton
    ├── GoneError         it cannot be reached, or the connection ended before the answer began
    ├── FullError         this process has no room for another connection
    ├── BrokenError       the answer ended in its middle, or is no HTTP
    └── LateError         there was no answer before the deadline
GatewayError              the gateway as a command cannot go on
├── SettingsError         a setting that is unknown, or not what it must be
├── KeysError             a key that cannot be made, found or changed
└── StartError            the gateway, or the Triton beside it, did not start
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.errors import ProjectError


@dataclass(eq=False)
class Refusal(ProjectError):  # noqa: N818  # an answer, not a failure
    """An answer of the gateway itself. Both doors send it: as problem details, or as Triton's `{"error": …}`.

    Attributes:
        status: Of HTTP.
        slug: The last part of the problem's type, which programs compare: "quota-exceeded".
        title: The same for every refusal with this slug.
        detail: What was found and expected, for the caller's eyes: no secret, no other caller's name.
        retry_after_s: When to ask again; of a 429 or 503 always.
        headers: More of the answer's.
        was_let_through: It came after the gate: what saw the request saw it, too.
    """

    status: int
    slug: str
    title: str
    detail: str
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    was_let_through: bool = False

    def __post_init__(self) -> None:
        super().__init__(f"{self.title}: {self.detail}")

    @property
    def all_headers(self) -> dict[str, str]:
        """Return its headers, `Retry-After` in whole seconds among them, rounded up."""
        if self.retry_after_s is None:
            return dict(self.headers)
        return {**self.headers, "Retry-After": str(max(1, -int(-self.retry_after_s // 1)))}


class UpstreamError(ProjectError):
    """What happened between the gateway and a Triton."""


class GoneError(UpstreamError):
    """No answer began: the Triton cannot be reached, or closed the connection. Another one may be asked.

    Attributes:
        was_kept: The connection had been held open since an earlier request: that it closed says nothing of whether
            the Triton is there.
        was_sent: The request was under way: the Triton may have ended because of it.
        was_silence: Nobody said so: nothing came at all.
        was_left: This side gave it up, so that another one is asked: the Triton is known to be silent.
    """

    was_kept = False
    was_sent = False
    was_silence = False
    was_left = False


class FullError(UpstreamError):
    """This process, or its machine, has no room for another connection, which says nothing of the Triton."""


class BrokenError(UpstreamError):
    """The answer ended in its middle, or is no HTTP."""


class LateError(UpstreamError):
    """The deadline passed before there was an answer. Triton computes on."""


class GatewayError(ProjectError):
    """The gateway cannot go on."""


class SettingsError(GatewayError):
    """A setting is unknown, or not what it must be."""


class KeysError(GatewayError):
    """A key cannot be made, found or changed."""


class StartError(GatewayError):
    """The gateway, or the Triton beside it, did not start."""
