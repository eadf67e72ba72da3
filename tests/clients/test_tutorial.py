"""What the tutorial and the recipes show is run: every block, in order, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from tests.conftest import RunningServer
from tests.workspace import FAMILY

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = ("docs/tutorials/call-a-model.md", "docs/how-to/call.md")  # the README: tests/test_readme.py


def program(page: Path, server: RunningServer, examples: Path) -> str:
    """The page's blocks as one program, with the places of the test in place of the usual ones."""
    text = "\n".join(_BLOCK.findall(page.read_text()))
    for usual, here in {
        "127.0.0.1:8001": server.grpc,
        "127.0.0.1:8000": server.http,
        f"artifacts/examples/{FAMILY}": str(examples),
        "artifacts/server/admin.key": str(server.workspace.root / "artifacts/server/admin.key"),
    }.items():
        text = text.replace(usual, here)
    return text


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_the_page_runs(server: RunningServer, examples: Path, tmp_path: Path, page: str) -> None:
    source = tmp_path / "page.py"
    source.write_text(program(layout.ROOT / page, server, examples))
    done = subprocess.run(
        [sys.executable, source],
        cwd=tmp_path,
        env={**server.workspace.environment, "PYTHONPATH": str(layout.ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
