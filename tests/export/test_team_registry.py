"""MLflow as a team has it, by the settings that are shipped: PostgreSQL, S3, two accounts. One trains, one approves."""

import dataclasses
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts import layout, manifest
from contracts.trust.account import Account
from export.errors import RegistryError
from export.registry import checkpoint, ledger, store, versions
from tests.command_lines import _environment, run_here
from tests.export import team
from tests.export.team import Team
from tests.export.test_registry import CHECKPOINT, published
from training import tracking
from training.runs.outbox import Outbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

USERS = ("alice", "bob", "carol")
PASSWORDS = {name: f"{name}: a password, 100% long" for name in USERS} | dict([team.ADMIN])
BY = ("--reason", "better on every month")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The team's server; alice trains, bob and carol approve, each with the grants that the how-to names."""
    with team.running(tmp_path_factory.mktemp("team")) as up:
        for name in USERS:
            up.call("POST", "2.0/mlflow/users/create", {"username": name, "password": PASSWORDS[name]})
        yield up


@contextmanager
def acting(server: Team, name: str) -> Iterator[None]:
    """Be somebody of the team, in a container where everybody is the same to the operating system."""
    with _environment(mine(server, name)):
        yield


def mine(server: Team, name: str) -> dict[str, str]:
    return server.environment(name, PASSWORDS[name]) | {"APPROVAL_RULES": os.environ["APPROVAL_RULES"]}


@pytest.fixture(autouse=True)
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rules as they are shipped, but that everybody is root here."""
    path = tmp_path / "approval.toml"
    text = (layout.ROOT / "configs" / "approval.toml").read_text()
    path.write_text(text.replace("shared_accounts = []", 'shared_accounts = ["root"]'))
    monkeypatch.setenv("APPROVAL_RULES", str(path))
    return path


@pytest.fixture
def released(server: Team, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A family of the test's own, trained, exported and registered by alice: its name."""
    family = request.node.name.removeprefix("test_").partition("[")[0][:40]
    with acting(server, "alice"):
        add(family, tmp_path, 1)
    grant(server, family, "bob", "carol")
    return family


def add(family: str, folder: Path, number: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking.open_store())
    known = client.get_experiment_by_name(family)
    run = client.create_run(known.experiment_id if known else client.create_experiment(family))
    (folder / "best.ckpt").write_bytes(CHECKPOINT)
    tracking.files_of(client, run.info.run_id).log_artifact(str(folder / "best.ckpt"), "checkpoint")
    made = published(folder / str(number), run.info.run_id, number)
    source = dataclasses.replace(made.source, trained_by=tracking.account())
    made = dataclasses.replace(made, family=family, served="2.51.0", source=source)
    manifest.write(made, folder / str(number))
    assert versions.register(made, folder / str(number)) == f"models:/{family}/{number}"


def grant(server: Team, family: str, *names: str) -> None:
    """What the administrator does."""
    done = run_here(("export", "approvers", family, *names), mine(server, team.ADMIN[0]))
    assert done.returncode == 0, done.stderr


def approve(server: Team, name: str, family: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return run_here(("export", "approve", family, "--by", name.title(), *BY, *more), mine(server, name))


def test_two_accounts_train_and_approve(server: Team, released: str, tmp_path: Path) -> None:
    with acting(server, "alice"):
        assert tracking.account() == Account("root", mlflow="alice")
        assert checkpoint.download(f"models:/{released}@challenger", tmp_path / "to").read_bytes() == CHECKPOINT
    assert any(key.endswith("release/model.onnx") for key in server.store.listed())
    refused = approve(server, "alice", released)
    assert refused.returncode == 1 and "whoever trained fashion_classifier version 1 cannot" in refused.stderr
    done = approve(server, "bob", released)
    assert done.returncode == 0, done.stderr
    told = json.loads(run_here(("export", "history", released, "--json"), mine(server, "carol")).stdout)
    [entry] = told["entries"]
    assert entry["account"]["mlflow"] == "bob" and entry["trained_by"]["mlflow"] == "alice"
    assert told["environments"]["production"]["version"] == "1" and not told["faults"]


def test_who_was_not_granted_it_cannot_write_the_ledger_and_what_is_set_by_hand_is_found(
    server: Team, released: str
) -> None:
    """A trainer may move aliases, as MLflow asks no more for that than for registering; the ledger is not hers."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    assert approve(server, "bob", released).returncode == 0
    with acting(server, "alice"):
        client = MlflowClient(tracking.open_store())
        run = ledger._find(client, released)
        assert run is not None
        for key in ("000001", "000002"):
            with pytest.raises(MlflowException, match="Permission denied"):
                client.log_param(run.info.run_id, key, "forged")
        client.set_registered_model_alias(released, "staging", "1")
    shown = run_here(("export", "history", released), mine(server, "bob"))
    assert shown.returncode == 1 and "the alias staging is at version 1, and nothing was approved" in shown.stdout
    assert run_here(("export", "history", released, "--repair"), mine(server, "bob")).returncode == 0
    with acting(server, "bob"):
        client = MlflowClient(tracking.open_store())
        with pytest.raises(MlflowException, match="Changing param values is not allowed"):
            client.log_param(run.info.run_id, "000001", "forged")


def test_a_large_checkpoint_of_a_fit_gets_through(
    server: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers when the bucket has it, and a fit waits 20 s for an answer."""
    from mlflow import MlflowClient

    large = tmp_path / "large.ckpt"
    with large.open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(1 << 20))
    with acting(server, "alice"):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        client = MlflowClient(tracking.open_store())
        run_id = client.create_run(client.create_experiment("large")).info.run_id
        said: list[str] = []
        outbox = Outbox(client, run_id, tmp_path, said.append)
        outbox.file(large, "checkpoint")
        assert not said, said[0]
        assert not outbox.waiting
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"
        back = Path(tracking.files_of(client, run_id).download_artifacts("checkpoint/large.ckpt"))
    assert manifest.sha256(back) == manifest.sha256(large)


def test_a_trainer_without_the_grant_is_refused_by_mlflow_itself(server: Team, released: str, rules: Path) -> None:
    rules.write_text(rules.read_text().replace("by_its_trainer = false", "by_its_trainer = true"))
    refused = approve(server, "alice", released)
    assert refused.returncode == 1 and "Permission denied" in refused.stderr
    assert "docs/how-to/team-mlflow.md" in refused.stderr
    assert "Nobody" in run_here(("export", "approvers", released), mine(server, "admin")).stdout
    told = run_here(("export", "approvers", released, "alice"), mine(server, "bob"))
    assert told.returncode == 1 and "run this as an administrator" in told.stderr
    told = run_here(("export", "approvers", released, "nobody"), mine(server, "admin"))
    assert told.returncode == 1 and "nobody" in told.stderr


def test_a_wrong_password_is_said(server: Team, released: str) -> None:
    guessing = mine(server, "bob") | {"MLFLOW_TRACKING_PASSWORD": "a guess"}
    done = run_here(("export", "history", released), guessing)
    assert done.returncode == 1 and "not authenticated" in done.stderr and "a guess" not in done.stderr
    assert "Hint: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr


def test_a_password_that_is_not_ascii_is_refused_where_files_are_concerned(server: Team, tmp_path: Path) -> None:
    """By MLflow 3.17, which takes it for everything else: the page says so. If this fails, it need not any more."""
    word = "dagmar hat ein geheimes Wörtchen"
    server.call("POST", "2.0/mlflow/users/create", {"username": "dagmar", "password": word})
    with _environment(server.environment("dagmar", word)):
        assert tracking.account().mlflow == "dagmar"
        with pytest.raises(RegistryError, match="a password is of ASCII alone"), store.opened("add a family"):
            add("of_dagmar", tmp_path, 1)


def test_of_many_approvals_at_the_same_moment_each_is_whole(server: Team, released: str, tmp_path: Path) -> None:
    """Eight processes, two accounts, two versions: no entry is lost, and the aliases are the last one's."""
    with acting(server, "alice"):
        add(released, tmp_path, 2)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "export", "approve", released, "--by", name, *BY, "--version", str(1 + number % 2)],
            cwd=layout.ROOT, env=mine(server, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number, name in enumerate(("bob", "carol", "carol", "bob") * 2)
    ]  # fmt: skip
    ended = [(process.communicate()[1], process.returncode) for process in started]
    told = json.loads(run_here(("export", "history", released, "--json"), mine(server, "bob")).stdout)
    entries = told["entries"]
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1)) and entries
    before = None
    for entry in entries:  # each was decided knowing the one before it
        assert entry["before"] == before != entry["version"]
        before = entry["version"]
    assert told["environments"]["production"]["version"] == before and not told["faults"]
    for said, code in ended:
        assert code == 0 or "somebody else decided about production at the same moment" in said, said


def test_who_may_register_cannot_delete_where_the_administrator_made_the_model(server: Team, tmp_path: Path) -> None:
    """Whoever makes a registered model may do anything with it, so it is not a trainer who makes it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    family = "of_the_administrator"
    server.call("POST", "2.0/mlflow/registered-models/create", {"name": family})
    told = {"username": "alice", "resource_type": "registered_model", "resource_id": family, "permission": "EDIT"}
    server.call("POST", "3.0/mlflow/users/permissions/grant", told)
    with acting(server, "alice"):
        add(family, tmp_path, 1)
        client = MlflowClient(tracking.open_store())
        for deletes in (client.delete_registered_model, lambda name: client.delete_model_version(name, "1")):
            with pytest.raises(MlflowException, match="Permission denied"):
                deletes(family)


def test_the_server_is_asked_by_the_names_that_it_knows_alone(server: Team) -> None:
    asked = "2.0/mlflow/users/current"
    assert server.call("GET", asked, {})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        server.call("GET", asked, {}, host="mlflow.example.org")


def test_a_database_that_was_killed_is_said_and_one_that_is_back_is_taken(server: Team, released: str) -> None:
    team.kill(server.database)
    gone = approve(server, "bob", released)
    server.database.ensure_postgres_running()
    assert gone.returncode == 1 and "cannot approve" in gone.stderr and "Traceback" not in gone.stderr
    assert approve(server, "bob", released).returncode == 0
