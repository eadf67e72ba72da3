"""The core of the library does no I/O: what threads and asyncio share needs no network to be tested."""

import ast
from pathlib import Path

import pytest

from contracts import layout

IO = {"asyncio", "socket", "ssl", "select", "grpc", "aiohttp", "geventhttpclient", "urllib", "http", "concurrent"}
CORE = sorted((layout.ROOT / "clients" / "core").glob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_nothing_that_does_io(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & IO
