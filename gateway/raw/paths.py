"""Which paths of the Open Inference Protocol are open, compared with the very bytes that came, never decoded.

Closed are model control, shared memory, trace and log settings, and what generates: `generate` reads all of its body
as JSON, and streams have no end that a limit could hold.
"""

import re
from dataclasses import dataclass

_NAME = rb"(?P<model>[A-Za-z0-9_][A-Za-z0-9_.-]{0,255})"
_VERSION = rb"(?:/versions/(?P<version>[0-9]{1,9}))?"
_MODEL = re.compile(rb"/v2/models/(?!stats(?:/|\Z))" + _NAME + _VERSION + rb"(?P<what>/infer|/ready|/config|/stats)?")
_HEALTH = {b"/v2/health/live": "live", b"/v2/health/ready": "ready"}


@dataclass(frozen=True)
class Path:
    """What a request is about.

    Attributes:
        what: "live", "ready", "server"; of a model "infer", "about" (metadata), "model-ready", "config", "stats".
        text: The path as it goes to Triton.
    """

    what: str
    text: str
    model: str = ""
    version: str = ""


def read(method: str, raw: bytes) -> Path | None:
    """Return what a request is about; None if that is closed."""
    if method == "GET":
        if raw in _HEALTH:
            return Path(_HEALTH[raw], raw.decode())
        if raw in (b"/v2", b"/v2/"):
            return Path("server", "/v2")
    elif method != "POST":
        return None
    found = _MODEL.fullmatch(raw)
    if found is None:
        return None
    what = (found["what"] or b"/about").decode()[1:]
    if (what == "infer") != (method == "POST"):
        return None
    version = (found["version"] or b"").decode()
    return Path("model-ready" if what == "ready" else what, raw.decode(), found["model"].decode(), version)
