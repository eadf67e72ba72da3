"""What root's server runs as, and what another user of this machine sees of any server's processes: nothing."""

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from contracts import layout
from deploy.errors import SettingsError
from deploy.neighbours import identity, variables
from deploy.neighbours.identity import Identity
from deploy.triton import launch
from tests.attackers import PLAYS
from tests.conftest import Workspace, free_ports, port_options
from tests.deploy.attackers import needs_another_user, reads

as_root = pytest.mark.skipif(os.geteuid() != 0, reason=f"{PLAYS}: only root can become somebody else")

SECRETS = {
    "ADMIN_KEY": "the-key-of-this-server",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-a-cloud",
    "MLFLOW_TRACKING_TOKEN": "a-secret-of-a-tracker",
    "TRITON_AUTH_TOKEN": "a-secret-under-a-name-like-ours",
    "https_proxy": "http://user:a-secret-of-a-proxy@proxy:3128",
    "TF_VAR_database": "a-secret-of-terraforms",
    "TRITON_STORE": "s3://user:a-secret-in-an-address@store/models",
    "PYTHONPYCACHEPREFIX": "/tmp/where-others-plant-bytecode",
}
# As Boost does it: a region whose mode is set whatever the umask; then modes that nobody takes from a program.
REGION = """
import os, resource, sys
region = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644)
os.fchmod(region, 0o644)
print(oct(os.fstat(region).st_mode & 0o777))
os.fchmod(region, 0o640)
print(oct(os.fstat(region).st_mode & 0o777), resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.parametrize(
    ("text", "uid", "gid"), [("root", 0, 0), ("0", 0, 0), ("70001", 70_001, 70_001), ("70001:70002", 70_001, 70_002)]
)
def test_a_user_is_a_name_or_numbers_that_need_no_account(text: str, uid: int, gid: int) -> None:
    found = Identity.of(text)
    assert (found.uid, found.gid) == (uid, gid)


@pytest.mark.parametrize("text", ["no-such-user", "", "-1", "4294967295", "1:4294967295", "1:", "0x10", "٣"])
def test_what_is_no_user_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="user"):
        Identity.of(text)


def test_by_default_it_is_a_user_that_nobody_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVER_USER", raising=False)
    assert identity.chosen(None).uid == 65_524
    assert identity.chosen("70001").uid == 70_001
    monkeypatch.setenv("SERVER_USER", "70002:7")
    assert (identity.chosen(None).uid, identity.chosen(None).gid) == (70_002, 7)
    monkeypatch.delenv("SERVER_USER")
    monkeypatch.setattr(identity, "_RESERVED", 0)
    with pytest.raises(SettingsError, match="root has it here"):
        identity.chosen(None)


@as_root
@pytest.mark.parametrize("given", [(), ("--user", "70001")])
def test_root_never_serves_as_root_because_nothing_else_would_do(
    sleeper: Workspace, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """The repository lies in a folder of root's alone, as that of a test does."""
    monkeypatch.delenv("SERVER_USER", raising=False)
    sleeper.root.chmod(0o700)
    done = sleeper.run_here("deploy", "up", "--repository", sleeper.repository, *given, *port_options(free_ports()))
    assert done.returncode == 1
    assert "and the server of root does not run as root unasked" in done.stderr
    assert "--user root" in done.stderr
    assert not (sleeper.root / "artifacts" / "server" / "server.json").exists()


@pytest.mark.parametrize("user", [None, pytest.param(Identity.of("70001:70002"), marks=as_root)])
def test_its_shared_memory_is_its_users_alone_and_it_leaves_no_core(tmp_path: Path, user: Identity | None) -> None:
    region = Path("/dev/shm", f"test_{os.getpid()}_{os.getuid()}")
    python = sys.executable if user is None else "/usr/bin/python3"
    process = launch.start([python, "-c", REGION, str(region)], {}, user, subprocess.PIPE)
    try:
        said, _ = process.communicate(timeout=20)
        assert said.decode().split("\n")[:2] == ["0o600", "0o640 (1, 1)"]
        if user is not None:
            assert (region.stat().st_uid, region.stat().st_gid) == (70_001, 70_002)
    finally:
        region.unlink(missing_ok=True)


def test_of_the_environment_models_get_what_they_need_and_no_secret() -> None:
    needed = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "LC_ALL": "C", "OMP_NUM_THREADS": "2", "LD_PRELOAD": "x.so"}
    assert variables.allowed({**needed, **SECRETS, "GREETING": "hello"}) == needed
    assert variables.allowed({**SECRETS, "GREETING": "hello"}, also=["GREETING"]) == {"GREETING": "hello"}
    said = {"MODEL_ENV": "GREETING,FAREWELL", "GREETING": "hello", "FAREWELL": "bye", "OTHER": ""}
    assert variables.allowed({**SECRETS, **said}) == {"GREETING": "hello", "FAREWELL": "bye"}


@pytest.mark.heavy
@needs_another_user
def test_another_user_reads_nothing_of_a_servers_processes(sleeper: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "GREETING": "hello"}.items():
        monkeypatch.setenv(name, value)
    options = ("--model-env", "GREETING", "--drain", "1", *port_options(free_ports()))
    sleeper.must("deploy", "up", "--detach", "--repository", sleeper.repository, *options)
    triton = psutil.Process(json.loads(sleeper.must("deploy", "status", "--json"))["pid"])
    record = json.loads((sleeper.root / "artifacts" / "server" / "server.json").read_text())
    regions = list(Path("/dev/shm").glob(f"{record['shared_memory']}*"))
    assert regions
    for region in regions:
        assert stat.S_IMODE(region.stat().st_mode) == 0o600
        assert not reads(region), "what requests and answers travel through"
    family = [triton, *triton.children(recursive=True)]
    assert len(family) >= 2
    for process in family:
        # Triton's own has what hides the key from process lists; its workers inherit that neither.
        own = "LAUNCH_ARGUMENT" if process == triton else " "
        given = {name: value for name, value in process.environ().items() if not name.startswith(own)}
        assert given["GREETING"] == "hello"
        assert not any(secret in value for secret in SECRETS.values() for value in given.values())
        assert process.rlimit(resource.RLIMIT_CORE) == (1, 1)
        assert not reads(Path(f"/proc/{process.pid}/environ"))
    sleeper.down()


def test_the_reserved_user_is_one_that_a_container_has() -> None:
    """Of 65,536 users, which is all that most containers know: more cannot be become there."""
    assert 65_520 <= identity._RESERVED <= 65_533
    assert str(identity._RESERVED) in (layout.ROOT / "docs" / "how-to" / "secure.md").read_text()
