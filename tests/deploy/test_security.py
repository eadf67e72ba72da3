"""Nobody without the admin key loads, unloads or configures a model, and no process list shows that key."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from deploy.errors import SettingsError
from deploy.neighbours.identity import Identity
from deploy.triton import launch, settings
from deploy.triton.settings import ADMIN_HEADER, Settings
from tests.attackers import PLAYS
from tests.conftest import MODEL, RunningServer, Workspace, free_ports, port_options

GRPC_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
CONFIGURE: dict[str, Any] = {"config": json.dumps({"backend": "python", "max_batch_size": 1})}
CODE: dict[str, Any] = {**CONFIGURE, "files": {"file:1/model.py": b"import os"}}

# What an intruder would try: (name, call on a client, with these headers)
Attempt = Callable[[Any, dict[str, str]], Any]
ATTEMPTS: dict[str, Attempt] = {
    "load": lambda client, headers: client.load_model(MODEL, headers=headers),
    "unload": lambda client, headers: client.unload_model(MODEL, headers=headers),
    "configure": lambda client, headers: client.load_model(MODEL, headers=headers, **CONFIGURE),
    "upload code": lambda client, headers: client.load_model("intruder", headers=headers, **CODE),
    "list": lambda client, headers: client.get_model_repository_index(headers=headers),
    "shared memory": lambda client, headers: client.register_system_shared_memory("r", "/x", 8, headers=headers),
    "trace": lambda client, headers: client.update_trace_settings(settings={"trace_rate": "1"}, headers=headers),
    "log": lambda client, headers: client.update_log_settings({"log_info": False}, headers=headers),
}


def key_of(workspace: Workspace) -> str:
    return (workspace.root / "artifacts" / "server" / "admin.key").read_text().strip()


def client_of(server: RunningServer, protocol: str) -> Any:
    if protocol == "grpc":
        return tritonclient.grpc.InferenceServerClient(server.grpc)
    return tritonclient.http.InferenceServerClient(server.http)


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("key", [None, "not-the-key-of-this-server"])
def test_without_the_key_the_admin_apis_refuse(
    server: RunningServer, protocol: str, attempt: str, key: str | None
) -> None:
    headers = {ADMIN_HEADER: key, GRPC_HEADER: key} if key else {}
    with client_of(server, protocol) as client:
        with pytest.raises(InferenceServerException, match="is restricted, expecting header"):
            ATTEMPTS[attempt](client, headers)
        assert client.is_model_ready(MODEL)
        assert not client.is_model_ready("intruder")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_with_the_key_they_answer(server: RunningServer, protocol: str) -> None:
    """Or the refusals above would prove nothing."""
    header = GRPC_HEADER if protocol == "grpc" else ADMIN_HEADER
    with client_of(server, protocol) as client:
        assert client.get_model_repository_index(headers={header: key_of(server.workspace)})


def test_no_process_shows_the_key_nor_inherits_it(server: RunningServer) -> None:
    key = key_of(server.workspace)
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert len(family) >= 4
    for process in [*psutil.process_iter(), *family]:
        try:
            assert key not in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
    for worker in family[1:]:
        assert key not in " ".join(worker.environ().values())
    assert key not in (server.workspace.root / "artifacts" / "server" / "triton.jsonl").read_text()


def test_the_generated_key_is_its_owners_alone_and_stays_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "server" / "admin.key"
    monkeypatch.setattr(settings, "generated_key_file", lambda: file)
    monkeypatch.delenv("ADMIN_KEY", raising=False)
    assert len(settings.admin_key(None)) >= 32
    assert settings.admin_key(None) == settings.admin_key(None) == file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_of_the_environment_comes_before_a_generated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_KEY", "k" * 16)
    assert settings.admin_key(None) == "k" * 16


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("k" * 16, 0o644, "others may read the admin key"),
        ("short", 0o600, "16 or more printable ASCII characters"),
        ("sixteen or more, with spaces", 0o600, "and no space"),
        ("schlüssel-schlüssel", 0o600, "printable ASCII"),
        (None, 0o600, "cannot read the admin key"),
    ],
)
def test_an_unusable_key_file_is_refused(tmp_path: Path, content: str | None, mode: int, message: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(SettingsError, match=message):
        settings.admin_key(file)


def test_another_key_than_the_servers_is_told_apart_from_a_dead_server(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_KEY", "another-key-than-the-servers")
    done = server.workspace.run("deploy", "status")
    assert done.returncode == 1
    assert "the server was started with another admin key" in done.stderr


PROGRAM = "import os, sys; print(sys.argv[1:], [n for n in os.environ if 'LAUNCH' in n], flush=True); sys.stdin.read()"


def test_a_secret_argument_reaches_the_program_and_nothing_else(tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-c",
        PROGRAM + "\nimport time; time.sleep(60)",
        launch.Secret("--key=", "open sesame"),
    ]
    process = launch.start([*arguments, "last"], {"A": "1"}, None, subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"['--key=open sesame', 'last'] []\n"
        assert psutil.Process(process.pid).cmdline()[3:5] == ["--key=***", "last"]
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process.pid}/status").read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason=f"{PLAYS}: only root can become somebody else")
def test_root_starts_the_program_as_somebody_without_privileges() -> None:
    process = launch.start(["/bin/sh", "-c", "id -u; id -G"], {}, Identity.of("nobody"), subprocess.PIPE)
    out, _ = process.communicate(timeout=10)
    assert out == b"65534\n65534\n"


def test_a_user_that_cannot_be_is_refused(released: Workspace) -> None:
    ports = port_options(free_ports())
    done = released.run_here("deploy", "up", "--repository", released.repository, "--user", "no-such-user", *ports)
    assert done.returncode == 1
    assert "there is no user no-such-user" in done.stderr or "only root can start" in done.stderr


def test_a_user_who_cannot_read_the_models_is_refused_by_the_file(released: Workspace) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{PLAYS}: only root can become somebody else")
    graph = released.model / "1" / "model.onnx"
    graph.chmod(0o600)
    many = released.repository / "many"  # as a thousand versions: more names than a command takes
    many.mkdir()
    for number in range(10_000):
        (many / f"{number:0240}").touch()
    ports = port_options(free_ports())
    done = released.run_here("deploy", "up", "--repository", released.repository, "--user", "nobody", *ports)
    assert done.returncode == 1
    assert "error: nobody cannot read " in done.stderr


def test_half_of_tls_is_refused(released: Workspace) -> None:
    done = released.run_here("deploy", "up", "--repository", released.repository, "--grpc-tls-cert", "server.pem")
    assert done.returncode == 1
    assert "both --grpc-tls-cert and --grpc-tls-key" in done.stderr


def test_it_listens_on_the_loopback_interface_unless_told_otherwise() -> None:
    assert Settings().host == "127.0.0.1"
