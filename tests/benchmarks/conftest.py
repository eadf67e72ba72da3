"""A benchmark as a function: its command, run in the test's own process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from benchmarks.__main__ import main
from cli.run import exit_code_of
from contracts.errors import ProjectError
from tests.conftest import Workspace


@dataclass(frozen=True)
class Ran:
    """What a benchmark left."""

    code: int
    out: str
    err: str

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The last line, which is for machines."""
        return dict(json.loads(self.out.splitlines()[-1]))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `python -m benchmarks ARGUMENTS…` in a workspace."""

    def run(workspace: Workspace, *arguments: str) -> Ran:
        monkeypatch.setenv("ARTIFACTS_DIR", str(workspace.root / "artifacts"))
        capsys.readouterr()
        code = exit_code_of(lambda: main(arguments), ProjectError)
        return Ran(code, *capsys.readouterr())

    return run
