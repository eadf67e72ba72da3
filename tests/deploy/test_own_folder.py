"""What lies beside a server's record is believed if nobody else can have put it there, whatever the umask was."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from deploy.errors import AccessError
from deploy.neighbours.identity import Identity
from deploy.proving import scratch
from deploy.running import logs
from deploy.served import private
from deploy.triton import health, settings, state
from deploy.triton.state import Process, Running
from tests.conftest import Workspace, free_ports
from tests.deploy.attackers import STRANGER, needs_another_user, reads, runs, taker

pytestmark = needs_another_user

KEY = "the-key-of-this-server"
PLANTED = "a-key-that-the-stranger-knows"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the record, made under a umask that keeps nobody out, in one where everybody may write."""
    monkeypatch.delenv("ADMIN_KEY", raising=False)
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    for folder in tmp_path.parents:
        if folder.name.startswith(("pytest-", "popen-")):  # pytest's are root's alone
            folder.chmod(0o711)
    tmp_path.chmod(0o755)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts").chmod(0o777)
    before = os.umask(0)
    yield tmp_path / "artifacts" / "server"
    os.umask(before)
    (tmp_path / "artifacts" / "server" / "triton.jsonl").unlink(
        missing_ok=True
    )  # or a server would seem to have been here


def record_of(server: Process, keeper: Process, ports: list[int], served: Path) -> Running:
    repository = str(served / "repository")
    http, grpc, metrics = ports
    return Running(server, keeper, "ready", "127.0.0.1", http, grpc, metrics, repository, repository, None, "", 1)


def lived_in(place: Path) -> None:
    """A server was here, and has written all that one does."""
    me = Process.of(os.getpid())
    with state.locked():
        settings.admin_key(None)
        state.record(record_of(me, me, free_ports(), place))


def run(workspace: Workspace, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return workspace.run_here("deploy", *arguments)


@pytest.mark.parametrize(
    "mode", [0o777, 0o2777], ids=["everybody's", "of the strangers' group, which what is made gets"]
)
def test_a_umask_that_keeps_nobody_out_lets_nobody_in(place: Path, mode: int) -> None:
    os.chown(place.parent, 0, STRANGER)
    place.parent.chmod(mode)
    lived_in(place)
    logs.write(state.log_file(), "info", "a server was here")
    assert {path.name for path in place.iterdir()} == {"admin.key", "server.json", "triton.jsonl", "up.lock"}
    for path in place.iterdir():
        assert not runs(f"open({str(path)!r}, 'r+')"), path
    assert not reads(place / "admin.key")
    assert not runs(f"open({str(place / 'new')!r}, 'w')")


def test_a_hard_link_to_the_key_opens_it_for_nobody(place: Path) -> None:
    lived_in(place)
    link = place.parent / "link"
    runs(f"import os; os.link({str(place / 'admin.key')!r}, {str(link)!r})")
    assert not reads(place / "admin.key") and not (link.exists() and reads(link))


@pytest.mark.parametrize("how", ["the folder replaced", "a folder in which everybody writes", "written into"])
def test_a_record_of_somebody_elses_gets_no_key_and_ends_no_process(
    place: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PID files do (CVE-2017-11747): it names whom root shall ask with the key, end, and what it shall remove."""
    lived_in(place)
    (place / "admin.key").write_text(KEY)
    monkeypatch.setenv("ADMIN_KEY", KEY)  # of its own or not: it is not sent
    ports, home = free_ports(), tmp_path / "home"
    (home / "repository").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as victim, taker(["127.0.0.1"], ports[:2]) as stranger:
        stranger.took(2)
        swapped = record_of(Process.of(stranger.process.pid), Process.of(victim.pid), ports, home)
        text = json.dumps(asdict(swapped))
        server = str(place)
        if how == "the folder replaced":
            assert runs(f"import os; os.rename({server!r}, {server + '.old'!r}); os.mkdir({server!r}, 0o755)")
        elif how == "a folder in which everybody writes":
            place.chmod(0o777)
            assert runs(f"import os; os.unlink({str(place / 'server.json')!r})")
        else:
            (place / "server.json").chmod(0o666)
        assert runs(f"open({str(place / 'server.json')!r}, 'w').write({text!r})")
        for command in ("status", "reload", "down", "up"):
            done = run(Workspace(tmp_path), command)
            assert done.returncode == 1 and "is not believed" in done.stderr, done.stdout + done.stderr
        assert health.main() == 1
        assert victim.poll() is None and (home / "repository").is_dir()
        assert stranger.got() == b""
        victim.kill()


def test_nothing_is_written_through_links_that_somebody_else_has_put_there(place: Path, tmp_path: Path) -> None:
    valuable = tmp_path / "valuable"
    valuable.write_text("of root's")
    names = ("up.log", "triton.jsonl", "up.lock", "server.json", "admin.key")
    links = "; ".join(f"os.symlink({str(valuable)!r}, {str(place / name)!r})" for name in names)
    assert runs(f"import os; os.mkdir({str(place)!r}, 0o777); {links}")
    for owner in (STRANGER, 0):  # the folder itself may be of root's
        os.chown(place, owner, owner)
        done = run(Workspace(tmp_path), "up", "--detach", "--repository", str(tmp_path))
        assert done.returncode == 1 and "is not believed" in done.stderr, done.stderr
        assert valuable.read_text() == "of root's"


def test_what_is_served_is_not_put_where_somebody_else_could_swap_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the folder may rename what is in there, and root would make a link's target the server's."""
    served = place.parent / "served"
    assert runs(f"import os; os.mkdir({str(served)!r})")
    monkeypatch.setenv("MODEL_SERVED", str(served))
    with pytest.raises(AccessError, match=f"is uid {STRANGER}'s"):
        private.make(Identity.of(str(STRANGER)))
    monkeypatch.setenv("MODEL_SERVED", str(place.parent))  # everybody's
    with pytest.raises(AccessError, match="others may write to"):
        private.make(Identity.of(str(STRANGER)))
    assert not list(served.iterdir())
    monkeypatch.setenv("MODEL_SERVED", str(place.parent / "own"))
    made = private.make(Identity.of(str(STRANGER + 1)))
    assert not runs(f"import os; os.rename({str(made.place)!r}, {str(served / 'mine')!r})")
    assert not runs(f"import os; os.listdir({str(made.place)!r})")
    made.remove()


def test_nobody_else_reaches_the_socket_of_the_serve_gate(tmp_path: Path) -> None:
    with scratch.socket_folder(tmp_path) as folder, socket.socket(socket.AF_UNIX) as gate:
        gate.bind(str(folder / "http"))
        gate.listen()
        assert not runs(f"import socket; socket.socket(socket.AF_UNIX).connect({str(folder / 'http')!r})")
        assert not runs(f"import os; os.rename({str(folder)!r}, {str(folder) + '.old'!r})")


def test_a_key_of_somebody_elses_is_not_taken_for_ours(place: Path, tmp_path: Path) -> None:
    """Who planted it knows it."""
    planted = str(place / "admin.key")
    assert runs(f"import os; os.mkdir({str(place)!r}); open({planted!r}, 'w').write({PLANTED!r})")
    done = run(Workspace(tmp_path), "up", "--repository", str(tmp_path))
    assert done.returncode == 1 and "is not believed" in done.stderr, done.stderr
