"""The compose files build, start and stop what they say: by podman-compose, as far as that and this machine go."""

import re
import urllib.request
from pathlib import Path

import pytest
import yaml

from deploy.triton.ports import free_ports
from tests.conftest import FAMILY, Workspace, port_options, wait_for
from tests.images import asking, compose, debian, pip_settings
from tests.images.containers import OWN_PORTS, Container

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(1200)]

UID = 4321  # neither the image's nor ours
USER = {"HOST_UID": str(UID), "HOST_GID": str(UID)}


@pytest.fixture
def checkout(images: None, release: Path, shared: Workspace, tmp_path: Path) -> Path:
    """A checkout of another user's, in which a release is published."""
    if reason := compose.missing():
        pytest.skip(reason)
    return compose.checkout(tmp_path / "checkout", shared.repository, UID)


def with_own_ports(file: Path, service: str, command: list[str], ports: list[int]) -> list[Path]:
    """Have a service of a compose file listen at ports that are free: the file, and maybe one on top of it.

    And the admin key: podman-compose 1.0 hands one of the environment to `up`, but "None" to `exec`.
    """
    text = file.read_text()
    for mine, own in zip(ports, OWN_PORTS, strict=True):
        assert f"127.0.0.1:{own}:" in text
        text = text.replace(f"127.0.0.1:{own}:", f"127.0.0.1:{mine}:")
    file.write_text(re.sub(r"^( +ADMIN_KEY:)", r"\1 a-key-of-the-users-own", text, flags=re.MULTILINE))
    if not debian.way().host_network:
        return [file]
    top = file.with_name("more.yaml")  # nothing is published there
    listening = [*(word for word in command if not word.startswith("--host=")), *port_options(ports)]
    top.write_text(yaml.safe_dump({"services": {service: {"command": listening}}}))
    return [file, top]


def check_that_it_is_locked(container: Container) -> None:
    """By what the kernel says of its first process, and by what can be written."""
    status = dict(line.split(":\t") for line in container.execute("cat", "/proc/1/status").stdout.splitlines())
    assert status["Uid"].split() == [str(UID)] * 4
    assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"
    for place in ("/app/new", "/opt/new", "/new"):
        refused = container.execute("touch", place)
        assert refused.returncode != 0 and "Read-only file system" in refused.stderr, place
    assert container.execute("touch", "/tmp/new").returncode == 0


def test_the_gpus_server_is_built_and_says_that_it_has_no_gpu(checkout: Path, triton: str, tmp_path: Path) -> None:
    """Further it does not go without one: podman-compose passes over the reservation, and `up` refuses."""
    file = checkout / "deploy" / "compose.yaml"
    command = yaml.safe_load(file.read_text())["services"]["triton"]["command"]
    files = with_own_ports(file, "triton", command, free_ports())
    build = [f"--build-arg=TRITON={triton}", *pip_settings.of_this_machine().options(tmp_path)]
    with compose.project(*files, scratch=tmp_path, build_options=build, environment=USER) as project:
        said = project.run("up", "--build", "--detach", "triton")
        assert said.returncode == 0, said.stdout + said.stderr
        container = Container(project.container("triton"))
        wait_for(lambda: "error: --device gpu: no GPU is here" in container.logs(), timeout_s=60)


def test_the_slim_image_comes_up_healthy_serves_and_goes_down(checkout: Path, tmp_path: Path) -> None:
    ports = free_ports()
    file = checkout / "deploy" / "compose.cpu.yaml"
    files = with_own_ports(file, "triton", ["up", "--log-to-stdout", "--device=cpu"], ports)
    build = [f"--build-arg=PYTHON={debian.image()}", *pip_settings.of_this_machine().options(tmp_path)]
    with compose.project(*files, scratch=tmp_path, build_options=build, environment=USER) as project:
        said = project.run("up", "--build", "--detach")
        assert said.returncode == 0, said.stdout + said.stderr
        container = Container(project.container("triton"), *(f"127.0.0.1:{port}" for port in ports[:2]))
        wait_for(container.healthy, timeout_s=60)
        check_that_it_is_locked(container)
        right, sent = asking.right_answers(container, checkout / "model_repository", FAMILY)
        assert right == sent > 20
        status = project.run("exec", "-T", "triton", "/opt/deploy/bin/python", "-m", "deploy", "status")
        assert f"✓ {FAMILY}" in status.stdout, status.stderr
        assert project.run("down").returncode == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{container.http}/v2/health/ready", timeout=2)
