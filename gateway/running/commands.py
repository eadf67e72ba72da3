"""What `python -m gateway up` and `keys` take."""

import argparse

from cli.commands import Command, count
from gateway.settings.commands import env_file


def _up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--host", help="address to listen on (default: as the settings say, else 127.0.0.1)")
    up.add_argument("--port", type=count, help="0: one that is free (default: as the settings say, else 8080)")
    up.add_argument("--workers", type=count, metavar="N", help="processes on one port; quotas then need Redis")
    up.add_argument(
        "--with-triton",
        action="store_true",
        help="start Triton, too: `python -m deploy up`, which serves the model repository on a Unix socket",
    )
    up.add_argument("triton", nargs="*", metavar="-- OPTION", help="of `python -m deploy up`, behind --with-triton")
    up.add_argument("--without-writer", action="store_true", help="`python -m store write` runs somewhere else")
    env_file(up)


def _keys(keys: argparse.ArgumentParser) -> None:
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key: it is shown this once", description=_CREATE)
    create.add_argument("name", metavar="NAME", help="whose it is, for people")
    create.add_argument(
        "--scope", action="append", metavar="MODELS:ACTION", help="repeatable (default: *:infer *:read *:feedback)"
    )
    create.add_argument(
        "--limit", action="append", default=[], metavar="NAME=LIMIT", help="requests_short=100/second; repeatable"
    )
    create.add_argument("--priority", type=int, choices=[1, 2, 3], help="the most urgent class it may ask for")
    create.add_argument("--expires", type=_span, metavar="TIME", help="after that long, as in 90d (default: never)")
    listed = actions.add_parser("list", help="all keys, without their secrets")
    revoke = actions.add_parser("revoke", help="make a key worth nothing, for ever")
    rotate = actions.add_parser("rotate", help="another secret for a key; the one before stays good for a while")
    for action in (revoke, rotate):
        action.add_argument("id", metavar="ID", help="as `list` shows it: eight hexadecimal digits")
    rotate.add_argument(
        "--grace", type=_span, default=86_400.0, metavar="TIME", help="for the one before (default: 1d); 0s is none"
    )
    for action in (create, listed, revoke, rotate):
        action.add_argument("--url", help="of a gateway to ask in place of the store (default: GATEWAY_ADMIN__URL)")
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")
        env_file(action)


def _span(text: str) -> float:
    from gateway.keys import span_s

    return span_s(text)


_CREATE = """Scopes are MODELS:ACTION: boats*:infer, *:read, *:feedback, keys:admin. Limits are requests_short,
requests_long, requests_day, inferences_short, inferences_long, inferences_day: of a day a number, else 100/second."""

COMMANDS = (
    Command("up", "answer requests, until it is stopped", "gateway.running.up:run", _up),
    Command("keys", "keys of callers: create, list, revoke, rotate", "gateway.keys:run", _keys),
)
