"""Roll back and promote act on what the running server serves, or say that no server serves the repository."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import repository
from tests.conftest import Workspace, port_options
from tests.deploy.conftest import write_model
from tests.deploy.upgrades import code, publish


def with_two_versions(root: Path, name: str = "scaler") -> Path:
    model = write_model(root, name, code(1), max_batch_size=4).parent
    publish(model, code(2))
    return model


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A server over one repository, and beside it another one that is the default."""
    from deploy.triton.ports import free_ports

    workspace = Workspace(tmp_path_factory.mktemp("site"))
    with_two_versions(workspace.root / "served")
    with_two_versions(workspace.repository)
    workspace.must("deploy", "up", "--detach", "--repository", workspace.root / "served", *port_options(free_ports()))
    yield workspace
    workspace.down()


def versions(model: Path) -> tuple[list[int], list[int]]:
    return repository.versions(model), repository.parked(model)


def answering(site: Workspace) -> list[int]:
    status = json.loads(site.run("deploy", "status", "--json").stdout)
    return [model["version"] for model in status["models"] if model["state"] == "READY"]


def test_without_a_repository_the_running_servers_is_meant(site: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_REPOSITORY", str(site.repository))  # the default one, which is not served
    said = site.must("deploy", "rollback", "scaler")
    assert "scaler: version 2 → 1" in said
    assert answering(site) == [1]
    assert versions(site.root / "served" / "scaler") == ([1], [2])
    assert versions(site.repository / "scaler") == ([1, 2], []), "the default one is as it was"
    assert "scaler: version 1 → 2" in site.must("deploy", "promote", "scaler")
    assert answering(site) == [2]


def test_of_a_repository_that_no_server_serves_it_says_so(site: Workspace) -> None:
    said = site.must("deploy", "rollback", "scaler", "--repository", site.repository)
    assert "scaler: no server serves this repository now; the next one will serve version 1" in said
    assert "Next: python -m deploy up" in said
    assert versions(site.repository / "scaler") == ([1], [2])
    assert answering(site) == [2], "the running server's is as it was"
    site.must("deploy", "promote", "scaler", "--repository", site.repository)
    assert versions(site.repository / "scaler") == ([1, 2], [])


def test_a_model_of_the_default_repository_is_not_looked_for_in_the_running_servers(
    site: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_REPOSITORY", str(site.repository))
    with_two_versions(site.repository, "elsewhere")
    done = site.run("deploy", "rollback", "elsewhere")
    assert done.returncode == 1
    assert "there is no model elsewhere in" in done.stderr and "models: scaler" in done.stderr
    assert versions(site.repository / "elsewhere") == ([1, 2], [])


@pytest.mark.parametrize("command", ["rollback", "promote", "reload"])
def test_a_name_that_leads_elsewhere_is_refused(site: Workspace, command: str) -> None:
    done = site.run("deploy", command, "../model_repository/scaler")
    assert done.returncode == 1
    assert "a model cannot be called '../model_repository/scaler'" in done.stderr
    assert "Traceback" not in done.stderr
    assert versions(site.repository / "scaler") == ([1, 2], [])
