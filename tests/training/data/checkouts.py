"""A checkout of its own, with what git has of the working tree, in which DVC keeps versions of data."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from contracts import layout
from tests.tracked import tracked

_LEFT_OUT = ("tests", "docs", "benchmarks", "examples", ".github")
_WHO = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


@dataclass(frozen=True)
class Checkout:
    """A checkout in which commands run as in a fresh clone whose environments were made."""

    root: Path
    programs: Path  # of the environment for data
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def pipeline(self) -> Path:
        return self.root / "training" / "families" / "flights" / "pipeline"

    def stage(self, name: str) -> str:
        return f"training/families/flights/pipeline/dvc.yaml:{name}"

    def run(self, *command: str | Path) -> "subprocess.CompletedProcess[str]":
        left = ("DATA_DIR", "ARTIFACTS_DIR", "MODEL_REPOSITORY", "MLFLOW_TRACKING_URI")
        mine = {key: value for key, value in os.environ.items() if key not in left}
        environment = {**mine, "TOOL_ENVIRONMENTS": str(self.programs.parent.parent), **self.variables}
        return subprocess.run(
            list(map(str, command)), cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def must(self, *command: str | Path) -> str:
        done = self.run(*command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def dvc(self, *arguments: str | Path) -> str:
        return self.must(self.programs / "dvc", *arguments)

    def python(self, *arguments: str | Path) -> str:
        return self.must(sys.executable, "-m", *arguments)

    def commit(self, message: str) -> None:
        self.must("git", "add", "--all")
        self.must("git", *_WHO, "commit", "--quiet", "--message", message)

    def set(self, stage: str, **parameters: Any) -> None:
        """Change parameters of a stage in params.yaml."""
        path = self.pipeline / "params.yaml"
        held = yaml.safe_load(path.read_text())
        held[stage] |= parameters
        path.write_text(yaml.safe_dump(held))

    def lies(self, stage: str) -> dict[str, bytes]:
        """What a stage has left: {file: its content}; no locks."""
        folder = self.root / "data" / stage / "flights"
        files = (path for path in folder.rglob("[!.]*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def new(root: Path, programs: Path) -> Checkout:
    for path in tracked(others=True):
        own = path.relative_to(layout.ROOT)
        if own.parts[0] not in _LEFT_OUT:
            (root / own).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, root / own)
    (root / ".venv").symlink_to(sys.prefix)
    made = Checkout(root, programs)
    made.must("git", "init", "--quiet", "--initial-branch", "main")
    (root / ".git" / "info" / "exclude").write_text("/.venv\n")  # .gitignore means a folder
    made.commit("as it is")
    return made
