"""Releases that are registered and wait for an approval, and the commands that give it. A real store, in a file."""

import dataclasses
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contracts import layout, manifest
from contracts.manifest import Manifest
from contracts.trust import account as accounts
from contracts.trust.account import Account
from export.registry import versions
from tests.command_lines import run_here
from tests.export.test_registry import client, published, training_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["client", "training_run"]  # fixtures

BY = ("--by", "Ada", "--reason", "better on every month")
ME = accounts.of_this_process()
ALICE = Account("alice")


@pytest.fixture
def rules_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rules as they are shipped, to be changed by a test."""
    path = tmp_path / "approval.toml"
    path.write_text((layout.ROOT / "configs" / "approval.toml").read_text())
    monkeypatch.setenv("APPROVAL_RULES", str(path))
    return path


@pytest.fixture
def register(client: "MlflowClient", training_run: str, tmp_path: Path, rules_file: Path) -> Callable[..., Manifest]:
    """Export and register the next release, trained by alice."""

    def make(trained_by: Account | None = ALICE, **changes: Any) -> Manifest:
        number = len([*tmp_path.glob("[0-9]*")]) + 1
        made = published(tmp_path / str(number), training_run, number)
        source = dataclasses.replace(made.source, trained_by=trained_by)
        made = dataclasses.replace(made, **{"source": source, "served": "2.51.0", **changes})
        manifest.write(made, tmp_path / str(number))
        assert versions.register(made, tmp_path / str(number)) == f"models:/fashion/{number}"
        return made

    return make


def export(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_here(("export", *arguments), os.environ)


def approve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return export("approve", "fashion", *BY, *arguments)


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 1 and not done.stdout, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def aliases(client: "MlflowClient") -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model("fashion").aliases.items()}
