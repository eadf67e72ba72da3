"""A registered release is approved by somebody, or refused with the reason. A real MLflow store, in a file."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts import manifest
from contracts.manifest import Manifest
from contracts.trust import account as accounts
from contracts.trust.account import Account
from export.registry import versions
from tests.attackers import UID, open_up
from tests.export.approvals import (
    ALICE,
    BY,
    ME,
    aliases,
    approve,
    client,
    export,
    refused,
    register,
    rules_file,
    training_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["client", "register", "rules_file", "training_run"]  # fixtures


def test_the_challenger_becomes_the_champion_and_it_is_written_down_by_whom(
    client: "MlflowClient", register: Callable[..., Manifest]
) -> None:
    register()
    done = approve()
    assert done.returncode == 0, done.stderr
    assert "production has models:/fashion/1, fashion_classifier version 1 (entry 1)" in done.stdout
    assert aliases(client) == {"challenger": "1", "champion": "1", "production": "1"}
    told = json.loads(export("history", "fashion", "--json").stdout)
    [entry] = told["entries"]
    assert (entry["by"], entry["reason"], entry["account"]["os"]) == ("Ada", "better on every month", ME.os)
    assert entry["trained_by"] == dataclasses.asdict(ALICE)
    assert entry["figures"] == {"accuracy, int8": 0.9, "accuracy, reference": 0.91, "gates passed": 4}
    shown = export("history", "fashion")
    assert shown.returncode == 0
    for word in ("Ada", "better on every month", f"({ME.os})", "fashion_classifier version 1", "0.9", "challenger"):
        assert word in shown.stdout


def test_environments_are_approved_one_by_one_and_the_last_one_has_the_champion(
    client: "MlflowClient", register: Callable[..., Manifest]
) -> None:
    register()
    register()
    assert approve("--environment", "dev").returncode == 0
    assert approve("--environment", "staging", "--version", "1").returncode == 0
    assert aliases(client) == {"challenger": "2", "dev": "2", "staging": "1"}
    assert "there are: dev, staging, production" in refused(approve("--environment", "prod"))


def test_the_same_approval_twice_is_one(client: "MlflowClient", register: Callable[..., Manifest]) -> None:
    register()
    approve()
    client.delete_registered_model_alias("fashion", "champion")  # as a kill between the two aliases leaves it
    again = approve()
    assert again.returncode == 0 and "already, since entry 1 by Ada" in again.stdout
    assert aliases(client)["champion"] == "1"
    assert len(json.loads(export("history", "fashion", "--json").stdout)["entries"]) == 1


def test_a_revoked_approval_gives_the_environment_what_it_had_before(
    client: "MlflowClient", register: Callable[..., Manifest]
) -> None:
    for number in ("1", "2", "3"):
        register(warnings=("few nights",))
        told = approve("--version", number)
        assert told.stderr.endswith("Warning: few nights\n")
        assert ("Before: accuracy, int8 0.9, " in told.stdout) == (number != "1")
    assert "production has models:/fashion/2" in export("revoke", "fashion", *BY).stdout
    assert aliases(client)["champion"] == "2"
    client.delete_model_version("fashion", "1")
    assert "production has nothing" in export("revoke", "fashion", *BY).stdout  # 1 is no more
    assert aliases(client) == {"challenger": "3"}
    assert "nothing of fashion is approved for production" in refused(export("revoke", "fashion", *BY))
    assert "production: 3 → 2 (revoked)" in export("history", "fashion").stdout


def test_a_gate_that_failed_is_named(client: "MlflowClient", register: Callable[..., Manifest]) -> None:
    made = register()
    [variant] = made.variants
    failed = dataclasses.replace(variant, gates=(manifest.Gate("agreement", 0.9, 0.998, "at least"),))
    register(variants=(failed,))
    assert "model.onnx: agreement 0.9 (limit: at least 0.998)" in refused(approve())
    register(gates=(manifest.Gate("configurations", 1, 0, "at most"),))
    assert "the release: configurations 1" in refused(approve())
    register(variants=(), choices=(), gates=())
    assert "nothing about fashion_classifier version 4 is proven" in refused(approve())
    register(served=None)
    assert "was not yet served" in refused(approve())
    assert aliases(client) == {"challenger": "5"}


def test_files_that_are_not_those_of_the_manifest_are_refused(
    client: "MlflowClient", register: Callable[..., Manifest], tmp_path: Path
) -> None:
    register()
    run_id = client.get_model_version("fashion", "1").run_id
    assert run_id
    there = tmp_path / "mlflow" / run_id / "artifacts" / "release"
    weights, described = (there / "model.onnx").read_bytes(), (there / "manifest.json").read_text()
    (there / "model.onnx").write_bytes(b"others")
    assert "changed: model.onnx" in refused(approve())
    (there / "model.onnx").unlink()
    assert "missing: model.onnx" in refused(approve())
    (there / "model.onnx").write_bytes(weights)
    (there / "more.py").touch()
    assert "not in the manifest: more.py" in refused(approve())
    (there / "more.py").unlink()
    (there / "manifest.json").write_text(described.replace('"alice"', '"somebody"'))
    assert "its manifest is another one" in refused(approve())
    (there / "manifest.json").write_text(described)
    assert approve().returncode == 0
    for path in there.iterdir():
        path.unlink()
    assert "log them again: python -m export register fashion_classifier 1" in refused(approve("--environment", "dev"))


def test_whoever_trained_it_cannot_approve_it(register: Callable[..., Manifest], rules_file: Path) -> None:
    register(trained_by=ME)
    told = refused(approve())
    assert "whoever trained fashion_classifier version 1 cannot approve it for production" in told
    assert f"it was trained by {ME}" in told
    assert "whoever trained" in refused(approve("--environment", "staging"))
    allowed = approve("--environment", "dev")  # as the rules say
    assert allowed.returncode == 0 and "Noted: approved by its trainer" in allowed.stdout
    rules_file.write_text(rules_file.read_text().replace("by_its_trainer = false", "by_its_trainer = true"))
    assert approve().returncode == 0
    entries = json.loads(export("history", "fashion", "--json").stdout)["entries"]
    assert [entry["remarks"] for entry in entries] == [["approved by its trainer"]] * 2


def test_an_unknown_trainer_is_nobody_who_can_be_told_apart(
    client: "MlflowClient", training_run: str, register: Callable[..., Manifest]
) -> None:
    client.set_tag(training_run, "mlflow.user", ME.os)  # what MLflow noted before we did
    register(trained_by=None)
    assert "whoever trained" in refused(approve())
    client.delete_tag(training_run, "mlflow.user")
    assert "an account that nobody wrote down" in refused(approve())
    register(source=dataclasses.replace(register().source, trained_by=None, mlflow_run_id=None), exported_by=ME)
    assert "whoever trained" in refused(approve())  # of a graph from elsewhere it is who exported it


@contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Be another user of the machine, to the kernel too, who may not read the Python of this one."""
    open_up(folder)
    for above in folder.parents:  # pytest's own, which nobody else may enter; xdist has one more
        if above.stat().st_mode & 0o001:
            break
        above.chmod(0o711)
    approve("--version", "99")  # what it imports
    os.setegid(UID)
    os.seteuid(UID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_another_account_of_the_machine_may_and_its_trainer_may_not(
    register: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played from another uid: what the environment says of it makes no difference."""
    register(trained_by=Account(f"uid {UID}"))
    register(trained_by=ME)
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("LOGNAME", "alice")
    assert "whoever trained" in refused(approve("--version", "2"))
    with another_user(tmp_path):
        told, done = refused(approve("--version", "1")), approve("--version", "2")
    assert f"it was trained by uid {UID}, and this command runs as uid {UID}" in told
    assert done.returncode == 0, done.stderr
    assert f"The account: uid {UID}, beside Ada" in done.stdout


@pytest.mark.parametrize(
    ("one", "other", "shared", "verdict"),
    [
        (Account("alice"), Account("bob"), (), "other"),
        (Account("alice"), Account("alice"), (), "same"),
        (Account("root", login="alice"), Account("alice"), (), "same"),  # by sudo
        (Account("root", login="alice"), Account("root", login="bob"), (), "same"),
        (Account("root", login="alice"), Account("root", login="bob"), ("root",), "other"),
        (Account("root"), Account("root"), ("root",), "unknown"),
        (Account("root", mlflow="alice"), Account("root", mlflow="bob"), ("root",), "other"),
        (Account("root", mlflow="alice"), Account("root", mlflow="alice"), ("root",), "same"),
        (Account("alice", mlflow="alice"), Account("laptop", mlflow="alice"), (), "same"),
        (Account("alice", mlflow="alice"), Account("alice", mlflow="bob"), (), "same"),
        (Account("root", mlflow="ci"), Account("bob", mlflow="ci"), ("root", "ci"), "unknown"),
        (Account("root", mlflow="alice"), Account("bob"), ("root",), "unknown"),
    ],
)
def test_accounts_are_one_persons_where_a_name_that_is_not_shared_is_in_both(
    one: Account, other: Account, shared: tuple[str, ...], verdict: str
) -> None:
    assert accounts.compare(one, other, shared) == accounts.compare(other, one, shared) == verdict


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("--by", " ", "--reason", "x"), "--by is a line of text"),
        (("--by", "Ada", "--reason", ""), "--reason is a line of text"),
        (("--by", "Ada", "--reason", "a\nb"), "--reason is a line of text"),
        (("--by", "Ada", "--reason", "x" * 1001), "found 1001 characters"),
        (("--by", "\udc80", "--reason", "x"), "--by is a line of text"),
        ((*BY, "--version", "9"), r"models:/fashion/9 does not exist, or was deleted"),
    ],
)
def test_what_nobody_can_answer_for_is_refused(
    register: Callable[..., Manifest], given: tuple[str, ...], reason: str
) -> None:
    register()
    assert reason in refused(export("approve", "fashion", *given))
    assert "Nothing" not in export("history", "fashion").stdout


def test_a_version_that_was_deleted_or_made_by_hand_is_said(
    client: "MlflowClient", register: Callable[..., Manifest]
) -> None:
    register()
    approve()
    client.delete_model_version("fashion", "1")
    gone = export("history", "fashion")
    assert gone.returncode == 1 and "version 1 was approved, and deleted in MLflow since" in gone.stdout
    assert "Next: python -m export revoke fashion --environment production" in gone.stdout
    assert "was deleted in MLflow" in refused(approve("--version", "1"))
    client.create_model_version("fashion", "file:///somewhere")
    assert "models:/fashion/2 is no release" in refused(approve("--version", "2"))


def test_a_release_whose_run_was_removed_is_registered_anew(
    client: "MlflowClient", register: Callable[..., Manifest], tmp_path: Path
) -> None:
    """`mlflow gc` removes what was deleted for good: the version stays, and leads to nothing."""
    made = register()
    run_id = client.get_model_version("fashion", "1").run_id or ""
    client.delete_run(run_id)
    client._tracking_client.store._hard_delete_run(run_id)
    said = refused(approve())
    assert "the run of models:/fashion/1 was removed from MLflow" in said
    assert "python -m export register fashion_classifier 1" in said
    assert versions.register(made, tmp_path / "1") == "models:/fashion/2"
    assert approve().returncode == 0
    assert aliases(client) == {"challenger": "2", "champion": "2", "production": "2"}


def test_an_alias_that_somebody_moved_by_hand_is_found_and_moved_back(
    client: "MlflowClient", register: Callable[..., Manifest]
) -> None:
    register()
    register()
    approve("--version", "1")
    client.set_registered_model_alias("fashion", "champion", "2")
    client.set_registered_model_alias("fashion", "staging", "2")
    shown = export("history", "fashion")
    assert shown.returncode == 1
    assert "the alias champion is at version 2, and version 1 was approved for production" in shown.stdout
    assert "the alias staging is at version 2, and nothing was approved for staging" in shown.stdout
    assert export("history", "fashion", "--repair").returncode == 0
    assert aliases(client) == {"challenger": "2", "champion": "1", "production": "1"}


def test_an_environment_may_ask_for_another_before_it(register: Callable[..., Manifest], rules_file: Path) -> None:
    rules_file.write_text(rules_file.read_text().replace('# after = "staging"', 'after = "staging"'))
    register()
    assert "models:/fashion/1 was not approved for staging" in refused(approve())
    assert approve("--environment", "staging").returncode == 0
    assert approve().returncode == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"it has no \[environments.NAME\]"),
        ("[environments.champion]", "an environment cannot be called 'champion'"),
        ("[environments.v3]", "an environment cannot be called 'v3'"),
        ("[environments.dev]\nby_its_trainer = 'no'", r"\[environments.dev\] takes by_its_trainer \(bool\)"),
        ("[environments.dev]\nby_trainer = true", r"\[environments.dev\] takes"),
        ("[environments.dev]\nafter = 'dev'", "dev is after 'dev', which is no earlier one"),
        ("shared = ['root']\n[environments.dev]", "nothing is called shared"),
        ("shared_accounts = 'root'\n[environments.dev]", "not a list of names"),
        ("[environments", "cannot be read as rules"),
        (None, "No such file"),
    ],
)
def test_rules_that_cannot_be_read_approve_nothing(rules_file: Path, text: str | None, reason: str) -> None:
    rules_file.unlink()
    if text is not None:
        rules_file.write_text(text)
    done = approve()
    assert done.returncode == 1
    assert re.search(reason, done.stderr), done.stderr


@pytest.mark.usefixtures("client", "rules_file")
def test_a_family_that_nobody_registered_and_names_that_are_none() -> None:
    assert "shoes" in refused(export("approve", "shoes", *BY))
    assert "a family cannot be called \"x' or" in refused(export("approve", "x' or", *BY))
    assert refused(export("history", "shoes"))
