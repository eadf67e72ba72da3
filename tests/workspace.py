"""A place with artifacts and a model repository of its own, in which tests run the commands that a user types."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from contracts import layout, manifest
from tests.command_lines import may_run_here, run_here
from tests.tracked import tracked

# The family that the tests train, export and serve, and the models that do: all else says FAMILY and MODEL.
FAMILY = layout.DEFAULT_FAMILY
MODEL, PREPROCESS, POSTPROCESS = f"{FAMILY}_classifier", f"{FAMILY}_preprocess", f"{FAMILY}_postprocess"

_farewells: "list[tuple[Workspace, subprocess.Popen[str]]]" = []  # servers that are being stopped


@dataclass(frozen=True)
class Workspace:
    """A place with its own artifacts and model repository."""

    root: Path
    serves: bool = False  # whether its exports are served before they are published; it takes some seconds each

    @property
    def repository(self) -> Path:
        return self.root / "model_repository"

    @property
    def model(self) -> Path:
        return self.repository / MODEL

    @property
    def served(self) -> Path:
        """What its server was given: a private copy."""
        return Path(json.loads((self.root / "artifacts" / "server" / "server.json").read_text())["served"])

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ARTIFACTS_DIR": str(self.root / "artifacts")}

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", *map(str, arguments)]

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """`python -m ARGUMENTS…` in this workspace: in this process where that makes no difference."""
        given = list(map(str, arguments))
        if not self.serves and _exports(given):
            given.append("--no-serve")
        return self.run_here(*given) if may_run_here(given) else self.run_apart(*given)

    def run_here(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """The same in this process, whatever it is: for what is refused before it starts anything."""
        return run_here(list(map(str, arguments)), self.environment)

    def run_apart(self, *arguments: str | Path, timeout_s: float = 500) -> "subprocess.CompletedProcess[str]":
        """The same in a process of its own, as a user would."""
        return subprocess.run(
            self.command(*arguments),
            cwd=layout.ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def down(self) -> None:
        """Stop its server with `python -m deploy down`, and do not wait: the end of the session does."""
        process = subprocess.Popen(
            self.command("deploy", "down"),
            cwd=layout.ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _farewells.append((self, process))

    def publish_again(self) -> None:
        """Publish a copy of version 1 of the network as version 2."""
        version = Path(shutil.copytree(self.model / "1", self.model / "2"))
        manifest.write(replace(manifest.read(version), version=2), version)

    def seal(self) -> None:
        """Make what was changed in version 1 of the network what was published."""
        version = self.model / "1"
        release = manifest.read(version)
        manifest.write(replace(release, files=manifest.files_of(version)), version)

    def must(self, *arguments: str | Path) -> str:
        """Run it; its standard output, or the test fails with what it said."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _exports(given: list[str]) -> bool:
    """Whether it is `python -m export` of a family or a graph, and not a command about what is published."""
    if given[:1] != ["export"]:
        return False
    from export.__main__ import OF_PUBLISHED  # not in every process: runpy warns where it is to run what is there

    return given[1:2] not in ([command.name] for command in OF_PUBLISHED)


def new_workspace(root: Path) -> Workspace:
    """A workspace with the model repository as git has it, but for a timeout; no version is published."""
    for path in tracked("model_repository"):
        copy = root / path.relative_to(layout.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    # A request does not fail because the machine stalls for a second.
    for door in (Path(PREPROCESS) / "config.pbtxt", Path(FAMILY) / "configs" / "cpu.pbtxt"):
        config = root / "model_repository" / door
        config.write_text(re.sub(r"(timeout_microseconds: )1000000\b", r"\g<1>60000000", config.read_text()))
    return Workspace(root)


def processes_of(workspace: Workspace) -> list[psutil.Process]:
    """Servers and stubs that run over this workspace."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(workspace.root) in " ".join(p.info["cmdline"] or [])]


def wait_for_farewells() -> None:
    """Wait until every server is stopped that a test has told to; an AssertionError says which one is not."""
    for workspace, process in _farewells:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        deadline = time.monotonic() + 10  # a process that ends is there for a moment
        while left := [" ".join(each.info["cmdline"]) for each in processes_of(workspace)]:
            assert time.monotonic() < deadline, f"it said that it had stopped its server: {left}"
            time.sleep(0.1)
