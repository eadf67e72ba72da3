"""A family of one's own, as docs/how-to/add-a-family.md says: every file and every command, in order, in a copy.

It takes two inputs, one of any length, and gives a number: nothing that the family which it is a copy of does.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts import layout
from deploy.triton import environment
from deploy.triton.ports import free_ports
from tests.conftest import FAMILY, Workspace, port_options
from tests.pages import Page
from tests.tracked import tracked

pytestmark = pytest.mark.heavy
PAGE = Page(layout.ROOT / "docs" / "how-to" / "add-a-family.md")
PORTS = free_ports()
FOLDER = "training/families/pump"


class Checkout:
    """A copy of the repository, in which the page's commands are typed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for path in tracked(others=True):
            copy = root / path.relative_to(layout.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)

    def type(self, command: str) -> str:
        """What it says; the test fails with it if it fails."""
        more = {"python -m deploy up": port_options(PORTS), "python -m clients": ["--server", f"127.0.0.1:{PORTS[1]}"]}
        words = [word for begin, added in more.items() if command.startswith(begin) for word in added]
        head, redirect, file = command.partition(" < ")
        done = subprocess.run(
            ["bash", "-c", f"{' '.join([head, *words])}{redirect}{file}"],
            cwd=self.root,
            env={
                **{k: v for k, v in os.environ.items() if k not in ("ARTIFACTS_DIR", "MODEL_REPOSITORY", "PYTHONPATH")},
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "SERVER_ENVIRONMENT": str(environment.HOME),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write_the_pages_files(self) -> set[str]:
        """The blocks that begin with a file's name, without that line; the names."""
        names = set()
        for block in PAGE.blocks:
            first, _, text = block.text.partition("\n")
            if first.startswith("# training/"):
                name = first.removeprefix("# ")
                (self.root / name).write_text(text)
                names.add(name)
        return names


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    copy = Checkout(tmp_path_factory.mktemp("checkout"))
    yield copy
    Workspace(copy.root).down()


def test_every_file_and_every_command_of_the_page(checkout: Checkout) -> None:
    first, *others = PAGE.typed
    assert first.startswith("python -m training new pump ")
    said = checkout.type(first)
    assert f"Made the family pump, so far the same as {FAMILY}" in said
    made = {path.relative_to(checkout.root).as_posix() for path in (checkout.root / FOLDER).glob("*.*")}
    assert checkout.write_the_pages_files() == made, "no file of the other family is left"

    told = {command: checkout.type(command) for command in others}
    [fit] = [text for command, text in told.items() if " fit " in command]
    squared_error = float(fit.partition("test_squared_error ")[2].split()[0].rstrip(","))
    assert 0 < squared_error < 0.4, "it learned: the variance of the hours themselves is 2"
    assert "Published pump_regressor version 1" in told["python -m export pump"]
    assert "pump_regressor" in told["python -m deploy up --detach"]
    assert f"{FAMILY} is not served: no version of" in told["python -m deploy up --detach"]

    [answer] = [json.loads(text) for command, text in told.items() if " infer " in command]
    labels = (checkout.root / "artifacts" / "examples" / "pump" / "labels.csv").read_text().splitlines()
    assert len(labels) == 13, "a line for each example"
    np.testing.assert_allclose(answer["hours"], [[float(labels[1].partition(",")[2])]], atol=1)


def test_what_it_left_passes_the_linter(checkout: Checkout) -> None:
    checkout.type(f"python -m ruff check {FOLDER} && python -m ruff format --check {FOLDER}")
