"""A release is served beside the one that serves, under names of its own, until it is taken away."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients import Client, ModelNotFoundError
from contracts import repository
from deploy.errors import ChangeError, RepositoryError
from deploy.keeping import standing
from deploy.served import arms
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import choosing, family, reloading
from deploy.versions.arm import put_up, take_away
from tests.conftest import Workspace, wait_for
from tests.deploy.test_switch import Load, of_release, publish, served, up
from tests.deploy.upgrades import running

__all__ = ["up"]  # a server over release 1 of `network`, its ensemble `whole` and their step `before`


def quiet(_: str) -> None:
    pass


def arm_of(n: int) -> set[str]:
    return {f"{name}.r{n} {n}" for name in ("network", "before", "whole")}


def answers(server: Running, model: str) -> tuple[float, str, int | None]:
    """What a model makes of 1, which is the number of the release, and what its response says of itself."""
    with Client(f"grpc://{server.grpc}") as client:
        answer = client.infer(model, {"IN": np.ones((1, 1), np.float32)})
        return float(answer["OUT"][0, 0]), answer.model, answer.version


@pytest.fixture
def site(up: tuple[Workspace, Running]) -> Iterator[tuple[Workspace, Running]]:
    """Releases 1 and 2, of which 2 serves, without arms."""
    workspace, _ = up
    server = running(workspace)
    if repository.versions(workspace.repository / "network")[-1] == 1:
        publish(workspace.repository)
        reloading.reload(server, (), quiet)
    yield workspace, server
    server = running(workspace)
    for arm in arms.kept(Path(server.served)):
        take_away(server, workspace.repository, arm.network, arm.version, quiet)
    assert served(server) == of_release(2)


def test_two_releases_answer_side_by_side_and_each_says_which_it_is(site: tuple[Workspace, Running]) -> None:
    workspace, server = site
    done = workspace.run("deploy", "arm", "whole", "1")
    assert done.returncode == 0, done.stderr
    assert "network: release 1 stands beside the one that serves, as network.r1, whole.r1, before.r1\n" in done.stdout
    assert served(server) == of_release(2) | arm_of(1)
    assert answers(server, "whole.r1") == (1.0, "whole.r1", 1) and answers(server, "whole") == (2.0, "whole", 2)
    listed = json.loads(workspace.must("deploy", "arm", "--json"))
    assert listed == [{"network": "network", "version": 1, "models": ["network.r1", "whole.r1", "before.r1"]}]
    status = json.loads(workspace.must("deploy", "status", "--json"))
    assert status["arms"] == listed and status["left_out"] == [] and status["ready"]
    assert "network: release 1 stands beside it as network.r1" in workspace.must("deploy", "status")
    workspace.must("deploy", "arm", "whole.r1", "--remove")
    assert served(server) == of_release(2)
    with pytest.raises(ModelNotFoundError):
        answers(server, "whole.r1")
    assert workspace.must("deploy", "arm") == "No release stands beside the one that serves.\n"


def test_what_is_served_publicly_changes_under_it_and_it_stays(site: tuple[Workspace, Running]) -> None:
    workspace, server = site
    root, load = workspace.repository, Load(connections=4)
    put_up(server, root, "network", 1, quiet)
    armed = Load("whole.r1", connections=4)
    with load.on(server), armed.on(server):
        armed.more(50)
        choosing.rollback(server, root, "whole", None)  # to the very release that stands
        assert served(server) == of_release(1) | arm_of(1)
        load.more(50)
        choosing.promote(server, root, "whole", None)
        reloading.reload(server, (), quiet)
        assert served(server) == of_release(2) | arm_of(1)
        armed.more(50)
        put_up(server, root, "network", 2, quiet)
        put_up(server, root, "network", 1, quiet)  # it does: nothing happens
        assert served(server) == of_release(2) | arm_of(1) | arm_of(2)
        take_away(server, root, "whole", 2, quiet)
        load.more(50)
    assert not load.errors and not armed.errors
    assert set(load.answers) == {(1.0, "1"), (2.0, "2")} and set(armed.answers) == {(1.0, "1")}


def test_it_is_there_again_after_a_crash_and_one_that_is_not_is_left_out_by_name(
    site: tuple[Workspace, Running], request: pytest.FixtureRequest
) -> None:
    workspace, server = site
    root = workspace.repository
    put_up(server, root, "network", 1, quiet)
    os.kill(server.triton.pid, signal.SIGKILL)
    log = workspace.root / "artifacts" / "server" / "triton.jsonl"
    wait_for(lambda: "Ready again" in log.read_text())
    server = running(workspace)
    assert served(server) == of_release(2) | arm_of(1)
    assert answers(server, "whole.r1") == (1.0, "whole.r1", 1)
    model = repository.directory(root / "network", 1) / "model.py"
    good = model.read_text()
    request.addfinalizer(lambda: model.write_text(good))
    model.write_text("not what was published")
    os.kill(server.triton.pid, signal.SIGKILL)
    wait_for(lambda: running(workspace).phase == "ready" and "network.r1" in running(workspace).left_out)
    server = running(workspace)
    assert served(server) == of_release(2)
    done = workspace.run("deploy", "status", "--json")
    status = json.loads(done.stdout)
    assert done.returncode == 3 and status["ready"] and status["arms"] == []
    [left] = status["left_out"]
    assert left["name"] == "network.r1" and "is not what was published" in left["reason"]
    listed = workspace.run("deploy", "arm")
    assert listed.returncode == 3 and listed.stdout.startswith("network.r1 is not served: ")
    model.write_text(good)
    workspace.must("deploy", "arm", "network", "1")
    assert answers(server, "whole.r1") == (1.0, "whole.r1", 1)
    wait_for(lambda: not running(workspace).left_out)
    assert workspace.run("deploy", "status").returncode == 0


def test_one_whose_answers_are_wrong_never_stands(site: tuple[Workspace, Running]) -> None:
    workspace, server = site
    root = workspace.repository
    bad = int(publish(root, factor=40).name)
    with repository.locked(root / "network"):
        repository.park(root / "network", bad)
    with pytest.raises(ChangeError, match=rf"network version {bad} does not stand beside: whole version {bad} gives"):
        put_up(server, root, "network", bad, quiet)
    assert served(server) == of_release(2) and not arms.kept(Path(server.served))
    with Control(server) as control:
        assert control.ready()


def test_no_release_is_removed_while_it_stands(site: tuple[Workspace, Running]) -> None:
    workspace, server = site
    version = workspace.repository / "network" / "1"
    wait_for(lambda: not repository.is_held(version))
    put_up(server, workspace.repository, "network", 1, quiet)
    assert repository.is_held(version), "right after the command, not a second later"
    take_away(server, workspace.repository, "network", None, quiet)
    wait_for(lambda: not repository.is_held(version))


def test_what_cannot_be_is_said(site: tuple[Workspace, Running]) -> None:
    workspace, server = site
    root = workspace.repository
    with pytest.raises(RepositoryError, match="network has no version 99"):
        put_up(server, root, "whole", 99, quiet)
    with pytest.raises(RepositoryError, match=r"of whole there is not one arm alone .*\nNote: arms: none"):
        take_away(server, root, "whole", None, quiet)
    (root / "whole.r1").mkdir()
    try:
        with pytest.raises(RepositoryError, match=r"the name whole\.r1 is that of a model in the repository"):
            put_up(server, root, "whole", 1, quiet)
    finally:
        (root / "whole.r1").rmdir()


def test_a_command_that_was_killed_leaves_no_arm_that_anybody_would_miss(
    site: tuple[Workspace, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when all has happened but that somebody said that it stays, or when the public name was pointed at it."""
    workspace, server = site
    root = workspace.repository

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(arms, "keep", killed)
        with pytest.raises(SystemExit):
            put_up(server, root, "network", 1, quiet)
    assert served(server) == of_release(2) | arm_of(1)
    reloading.reload(server, (), quiet)
    assert served(server) == of_release(2)
    put_up(server, root, "network", 1, quiet)
    with monkeypatch.context() as patch:
        patch.setattr(family._Change, "settle", killed)
        patch.setattr(family._Change, "take_back", lambda _: None)
        patch.setattr(standing, "withdraw", lambda *_: None)
        with pytest.raises(SystemExit):
            choosing.promote(server, root, "network", 1)
    assert answers(server, "whole") == (1.0, "whole", 1)
    load = Load(connections=4)
    with load.on(server):
        load.more(20)
        take_away(server, root, "network", 1, quiet)
        load.more(20)
    assert not load.errors and answers(server, "whole") == (2.0, "whole", 2)
