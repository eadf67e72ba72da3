"""The ledger of approvals: written once, in one order, whatever happens at the same moment. A real store, in a file."""

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from mlflow import MlflowClient

from contracts import layout
from contracts.manifest import Manifest
from contracts.trust.account import Account
from export.errors import ApprovalError
from export.registry import approval, ledger, rules
from export.registry.ledger import Entry, TakenError
from tests.command_lines import run_here
from tests.export.approvals import aliases, approve, client, export, refused, register, rules_file, training_run

__all__ = ["client", "register", "rules_file", "training_run"]  # fixtures

PRODUCTION = rules.Environment("production", champion=True)


def entry(version: str = "1", environment: str = "production", before: str | None = None) -> Entry:
    return Entry("approve", environment, version, before, "Ada", "why", Account("ada"), "2026-01-01T00:00:00+00:00")


def at_once(number: int, act: Callable[[MlflowClient], object]) -> list[object]:
    """Let so many threads do something at the same moment: what each was given, or raised."""
    gate, found = threading.Barrier(number), []

    def run() -> None:
        own = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        gate.wait()
        try:
            found.append(act(own))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_of_those_who_write_the_same_number_one_does(client: MlflowClient) -> None:
    ledger.begin(client, "fashion")
    told = at_once(6, lambda own: ledger.append(own, "fashion", 1, entry()))
    assert sorted(type(one).__name__ for one in told) == ["NoneType", *["TakenError"] * 5]
    assert len(ledger.read(client, "fashion").entries) == 1


def test_of_those_who_begin_a_ledger_all_get_the_same_one(client: MlflowClient) -> None:
    told = at_once(6, lambda own: ledger.begin(own, "fashion"))
    assert len({*told}) == 1 and isinstance(told[0], str), told
    names = [found.name for found in client.search_experiments()]
    assert names.count("fashion approvals") == 1
    assert not [name for name in names if "being made" in name]  # those who came second removed theirs


def test_what_is_written_is_read_back_and_cannot_be_changed(client: MlflowClient) -> None:
    written = entry()
    ledger.append(client, "fashion", 1, written)
    ledger.append(client, "fashion", 1, written)  # a request that was sent twice
    assert ledger.read(client, "fashion").entries == {1: written}
    with pytest.raises(TakenError):
        ledger.append(client, "fashion", 1, entry("2"))
    assert ledger.read(client, "fashion").entries == {1: written}


def test_who_decides_on_what_is_no_more_is_told_and_who_decides_on_something_else_is_not(
    client: MlflowClient, register: Callable[..., Manifest]
) -> None:
    register()
    stale = ledger.read(client, "fashion")
    ledger.append(client, "fashion", 1, entry(environment="staging"))
    done = approval._write(client, "fashion", PRODUCTION, stale, entry())
    assert done.number == 2
    with pytest.raises(ApprovalError, match=r"at the same moment\n.*models:/…/1 now, by Ada \(ada\): why"):
        approval._write(client, "fashion", PRODUCTION, stale, entry("2"))


def test_who_is_overtaken_moves_the_aliases_on(client: MlflowClient, register: Callable[..., Manifest]) -> None:
    """The slower of two sets the aliases last, to what it had read: it looks once more, and puts that right."""
    register()
    register()

    class Slow(MlflowClient):
        overtaken = False

        def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
            if not self.overtaken:
                self.overtaken = True
                known = ledger.read(client, "fashion")
                approval._write(client, "fashion", PRODUCTION, known, entry("2", before="1"))
            super().set_registered_model_alias(name, alias, version)

    slow = Slow(os.environ["MLFLOW_TRACKING_URI"])
    approval._write(slow, "fashion", PRODUCTION, ledger.read(slow, "fashion"), entry("1"))
    assert aliases(client) == {"challenger": "2", "champion": "2", "production": "2"}


@pytest.mark.parametrize(
    ("story", "has"),
    [
        ("", None),
        ("1 2", "2"),
        ("1 2 back-to-1", "1"),
        ("1 2 back-to-1 back-to-nothing", None),
        ("1 2 3 back-to-1", "1"),  # 2 was deleted meanwhile
        ("1 2 1 back-to-2 back-to-1", "1"),
        ("1 back-to-nothing 2", "2"),
    ],
)
def test_an_environment_has_the_last_approval_that_stands(story: str, has: str | None) -> None:
    written = {}
    for number, word in enumerate(story.split(), 1):
        version = word.removeprefix("back-to-")
        action: Literal["approve", "revoke"] = "approve" if word == version else "revoke"
        written[number] = replace(entry(), action=action, version=None if version == "nothing" else version)
    found = ledger.Ledger(written)
    assert found.version("production") == has and found.version("staging") is None


def test_what_somebody_wrote_by_hand_counts_for_nothing(
    client: MlflowClient, register: Callable[..., Manifest]
) -> None:
    register()
    approve()
    [run] = client.search_runs([ledger.begin(client, "fashion")])
    for key, text in {"000002": "champion: 1", "000003": "{}", "note": "mine"}.items():
        client.log_param(run.info.run_id, key, text)
    shown = export("history", "fashion")
    assert shown.returncode == 0 and shown.stdout.count("cannot be read") == 2
    assert "entry 4" in approve("--environment", "staging").stdout


def test_a_ledger_that_was_deleted_is_not_begun_anew(client: MlflowClient, register: Callable[..., Manifest]) -> None:
    register()
    approve()
    [run] = client.search_runs([experiment := ledger.begin(client, "fashion")])
    client.delete_run(run.info.run_id)
    assert f"mlflow runs restore --run-id {run.info.run_id}" in refused(approve("--environment", "dev"))
    client.restore_run(run.info.run_id)
    client.delete_experiment(experiment)
    assert f"mlflow experiments restore --experiment-id {experiment}" in refused(approve("--environment", "dev"))
    client.restore_experiment(experiment)
    assert "entry 2" in approve("--environment", "dev").stdout


@pytest.mark.usefixtures("rules_file")
def test_a_registry_that_is_gone_is_said_in_one_line() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening
        gone = {**os.environ, "MLFLOW_TRACKING_URI": f"http://me:secret@127.0.0.1:{nobody.getsockname()[1]}"}
        gone["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        for command in ("approve", "revoke"):
            told = refused(run_here(("export", command, "fashion", "--by", "Ada", "--reason", "x"), gone))
            assert f"cannot {command}" in told and "Connection refused" in told and "secret" not in told


def test_the_rules_that_are_shipped_let_no_trainer_into_production() -> None:
    shipped = rules.read(layout.ROOT / "configs" / "approval.toml")
    assert [e.name for e in shipped.environments] == ["dev", "staging", "production"]
    production = shipped.environment(None)
    assert production == PRODUCTION and production.aliases == ("production", "champion")
