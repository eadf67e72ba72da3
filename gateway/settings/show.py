"""`python -m gateway settings`: what holds, and where from; secrets are masked."""

import argparse
import json
from typing import Any

from pydantic import BaseModel, SecretStr

from cli.tables import console, table
from contracts import layout
from gateway.settings import sources
from gateway.settings.sources import Read

MASK = "********"


def run(options: argparse.Namespace) -> int:
    """Print every setting."""
    read = sources.read(options.env_file)
    rows = described(read)
    if options.json:
        print(json.dumps({name: {"value": value, "from": place} for name, value, place in rows}))
        return 0
    shown = table("setting", "value", "from", left=3)
    for name, value, place in rows:
        if not options.changed or place != sources.DEFAULT:
            shown.add_row(name, _written(value), place)
    console().print(shown)
    example = sources.variable("limits.body_bytes")
    print(f"Change one in {layout.shown(sources.file_path())}, or in the environment: {example}=1048576")
    return 0


def described(read: Read) -> list[tuple[str, Any, str]]:
    """List every setting: its name, its value as JSON has it, masked if it is secret, and where it is from."""
    return [(name, _plain(_value(read.settings, name)), read.origin(name)) for name in sources.names()]


def _value(settings: BaseModel, name: str) -> Any:
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _written(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(value) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
