"""kill -9 of `deploy` at random moments: what serves is a whole release, the one asked for last or the one before.

Of the command that changes what is served, or of the process that keeps the server up; and then whatever comes next:
the next command, the server's crash, another `up`.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from contracts import layout, repository
from deploy.triton.control import Control
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.test_arms import answers
from tests.deploy.test_switch import Load, of_release, publish, served
from tests.deploy.upgrades import running

KILLS = int(os.environ.get("KILLS", 20))
SEED = int(os.environ.get("KILL_SEED", 0)) or random.SystemRandom().randrange(1, 2**32)


class Site:
    """A server over releases in which a mixture shows, and the commands that change which one serves."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.network = workspace, workspace.repository / "network"
        key = workspace.root / "admin.key"
        key.touch(mode=0o600)
        key.write_text("k" * 32)
        options = ("--repository", str(workspace.repository), "--admin-key-file", str(key), "--drain", "3")
        self._options = (*options, *port_options(free_ports()))

    def up(self) -> None:
        self.workspace.must("deploy", "up", "--detach", *self._options)

    @property
    def newest(self) -> int:
        return repository.versions(self.network)[-1]

    def is_another_than(self, died: int) -> bool:
        return running(self.workspace).triton.pid != died

    def begin(self, random: random.Random) -> "tuple[subprocess.Popen[bytes], str, int]":
        """Begin a command; the process, what it is, and the release that it asks for."""
        parked, older = repository.parked(self.network), repository.versions(self.network)[:-1]
        kind = random.choice(["reload", *["promote"] * bool(parked), *["rollback"] * bool(older)])
        if kind == "reload":
            asked = int(publish(self.workspace.repository).name)
            arguments = ["reload"]
        else:
            asked = random.choice(parked) if kind == "promote" else older[-1]
            arguments = ["promote", "whole", str(asked)] if kind == "promote" else ["rollback", "network"]
        process = subprocess.Popen(
            self.workspace.command("deploy", *arguments),
            cwd=layout.ROOT,
            env=self.workspace.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return process, " ".join(arguments), asked


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(Workspace(tmp_path))
    site.network.mkdir(parents=True)
    (site.network / "config.pbtxt").write_text("none of it decides an answer: {")
    for _ in range(2):
        publish(site.workspace.repository)
    site.up()
    yield site
    site.workspace.down()


def kill(process: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(process, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.heavy
def test_whatever_is_killed_when_a_whole_release_serves(site: Site) -> None:
    print(f"KILL_SEED={SEED}")
    chance = random.Random(SEED)
    begun = time.monotonic()
    site.workspace.must("deploy", "rollback", "network")
    takes_s = time.monotonic() - begun
    load = Load(connections=4)
    for number in range(KILLS):
        server, before = running(site.workspace), site.newest
        after = chance.choice(["the next command", "the next command", "a crash", "another up"])
        with load.on(server):
            process, command, asked = site.begin(chance)
            moment_s = chance.uniform(0.2, 1.1) * takes_s
            time.sleep(moment_s)
            told = f"{number}: {command} over {before}, killed after {moment_s:.3f} of {takes_s:.3f} s, then {after}"
            print(told)
            if after == "another up":
                kill(server.supervisor.pid)
                kill(process.pid) if chance.random() < 0.5 else None
                process.wait()
                load.errors.clear()  # there was no server
                site.up()
            else:
                kill(process.pid)
                process.wait()
                assert not load.errors, told
            if after == "a crash":
                kill(died := server.triton.pid)
                wait_for(partial(site.is_another_than, died))
                wait_for(lambda: running(site.workspace).phase == "ready")
                load.errors.clear()
            server = running(site.workspace)
            factor, _, version = answers(server, "whole")
            assert factor == version and version in (before, asked), told
            assert site.newest in (before, asked), told
            if after == "another up":
                load.errors.clear()
                assert served(server) == of_release(site.newest), told
            site.workspace.must("deploy", "reload")
            assert served(server) == of_release(site.newest), told
            assert not load.errors, told
        with Control(server) as control:
            wait_for(control.ready, timeout_s=20)
        assert all(factor == float(version) for factor, version in load.answers), f"a mixture: {told}, {load.answers}"
        load = Load(connections=4)
