"""What stands where: the core does no I/O, and arrows between the rooms of the library go down only."""

import ast
from pathlib import Path

import pytest

from contracts import layout

CLIENTS = layout.ROOT / "clients"
IO = {"asyncio", "socket", "ssl", "select", "grpc", "aiohttp", "geventhttpclient", "urllib", "http", "concurrent"}
# Each may import what is below it, and of its own room anything.
ROOMS = ("errors", "settings", "core", "transports", "drivers", "shared_memory", "command_line")


def room_of(module: str) -> str:
    """Of a module's name behind `clients.`."""
    first = module.partition(".")[0]
    return first if first in ROOMS else "drivers"


def imports_of(path: Path) -> set[str]:
    """The modules it imports; of ours, each name of `from … import …` that is one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = (layout.ROOT / (node.module or "").replace(".", "/")).is_dir()
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if inside else {node.module or ""}
    return found


@pytest.mark.parametrize("path", sorted((CLIENTS / "core").glob("*.py")), ids=lambda path: path.stem)
def test_the_core_does_no_io(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports_of(path)} & IO


@pytest.mark.parametrize("path", sorted(CLIENTS.rglob("*.py")), ids=lambda path: str(path.relative_to(CLIENTS)))
def test_rooms_import_what_is_below_them(path: Path) -> None:
    if path.name in ("__init__.py", "__main__.py", "setup.py") and path.parent == CLIENTS:
        return  # the door, which everybody goes through
    own = room_of(".".join(path.relative_to(CLIENTS).with_suffix("").parts))
    for name in imports_of(path):
        if name.startswith("clients."):
            assert ROOMS.index(room_of(name.removeprefix("clients."))) <= ROOMS.index(own), name
