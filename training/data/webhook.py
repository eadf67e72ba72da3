"""Tells a URL that a gate was not passed: JSON with a text that chats show, and the failed expectations by name."""

import json
import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from contracts import layout
from contracts.errors import ProjectError
from training.data.verdict import Verdict

VARIABLE = "DATA_WEBHOOK"
_PATIENCE_S = 5.0


def address(given: str | None) -> str | None:
    """Return where to tell: what was given, else $DATA_WEBHOOK, else nowhere.

    Raises:
        ProjectError: it is no address of HTTP.
    """
    url = given or os.environ.get(VARIABLE) or None
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        # Not repeated: the address of a webhook is its password.
        raise ProjectError("the webhook is no address", hint=f"--webhook https://HOST/PATH, or {VARIABLE}")
    return url


def tell(url: str, verdict: Verdict) -> str | None:
    """Send the verdict; return why it did not arrive, None where it did."""
    try:
        body = json.dumps(payload(verdict)).encode()
        request = Request(url, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310  # see address
        with build_opener(_Stay).open(request, timeout=_PATIENCE_S):
            return None
    except (URLError, OSError, ValueError, HTTPException) as error:
        return f"{urlsplit(url).hostname}: {getattr(error, 'reason', None) or error}"


class _Stay(HTTPRedirectHandler):
    """Takes a redirect for what it is, an error: urllib would ask the other address with GET, and tell it nothing."""

    def redirect_request(self, *_: object) -> None:
        return None


def payload(verdict: Verdict) -> dict[str, object]:
    """Return what is sent."""
    failed = [
        {"table": each.table, "expectation": each.expectation, "column": each.column, "told": each.told}
        for each in verdict.failed
    ]
    lines = [f"{each.name}: {each.told}" for each in verdict.failed]
    head = f"{verdict.family}: {len(lines)} of {len(verdict.outcomes)} expectations of {verdict.gate} data failed"
    return {
        "text": "\n".join([head, *lines]),
        "family": verdict.family,
        "gate": verdict.gate,
        "failed": failed,
        "docs": layout.shown(Path(verdict.docs)),
    }
