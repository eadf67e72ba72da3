"""The headers of a request that matter to the raw door, each once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.deadline import HEADER as TIMEOUT
from gateway.errors import Refusal
from gateway.raw.header import MOST_BYTES
from gateway.raw.strict import refused

LENGTH = "inference-header-content-length"
_ONCE = frozenset((b"authorization", b"content-length", b"content-encoding", LENGTH.encode(), TIMEOUT.encode()))
_KEPT = _ONCE | {b"traceparent", b"x-request-id", b"x-api-key"}


@dataclass(frozen=True)
class Given:
    """What a request says above its body."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> "Given":
        """Take those that matter.

        Raises:
            Refusal: 400: one is there twice; of two, which one counts is anybody's guess.
        """
        found: dict[str, str] = {}
        for name, value in headers:
            if name in _KEPT:
                key = name.decode("ascii")
                if key in found:
                    if name in _ONCE:
                        raise refused(f"the header {key} is there twice")
                    continue
                found[key] = value.decode("latin-1")
        return cls(found)

    @property
    def authorization(self) -> str | None:
        """Who it says that asks."""
        return self.values.get("authorization")

    @property
    def content_length(self) -> int | None:
        """How long its body is; None: it comes in chunks."""
        given = self.values.get("content-length")
        if given is None:
            return None
        if not (given.isascii() and given.isdecimal() and len(given) <= 15):
            raise refused("Content-Length is no length")
        return int(given)

    @property
    def json_length(self) -> int:
        """How long the JSON before the tensors is.

        Raises:
            Refusal: 400, 413, or 415 of a body that is compressed.
        """
        if self.values.get("content-encoding", "identity") not in ("", "identity"):
            detail = "send it as it is: tensors hardly shrink, and what inflates has no limit"
            raise Refusal(415, "compressed", "Compressed requests are not accepted", detail)
        given = self.values.get(LENGTH, "")
        if not (given.isascii() and given.isdecimal() and len(given) <= 9) or int(given) == 0:
            raise refused("Inference-Header-Content-Length must be there once, as long as the JSON before the tensors")
        if int(given) > MOST_BYTES:
            detail = f"the JSON of a request may have {MOST_BYTES:,} bytes: tensors belong in binary"
            raise Refusal(413, "too-large", "The request is too large", detail)
        length = self.content_length
        if length is not None and int(given) > length:
            raise refused("Inference-Header-Content-Length must be there once, as long as the JSON before the tensors")
        return int(given)
