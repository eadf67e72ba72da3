"""`up` takes the GPU's configurations or the CPU's, and says which, on what and why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.devices import chosen, cuda, driver
from deploy.devices.driver import Driver, Gpu
from deploy.triton import arguments
from deploy.triton.environment import Triton
from deploy.triton.settings import Settings
from tests import stub_libraries

Here = Callable[..., None]
H100 = Gpu(0, "NVIDIA H100", "GPU-aaaa", "9.0", 80 << 30)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    """A machine with such a device, on which such a driver answers, or CUDA sees such GPUs."""

    def make(
        node: str | None = None, known: Driver | None = None, by_cuda: tuple[list[str], str] = ([], "no libcuda")
    ) -> None:
        for name in ("nvidiactl", "dxg"):
            (tmp_path / name).unlink(missing_ok=True)
        if node:
            (tmp_path / node).touch()
        monkeypatch.setattr(chosen, "_NODES", (tmp_path / "nvidiactl", tmp_path / "dxg"))
        monkeypatch.setattr(driver, "ask", lambda: known)
        monkeypatch.setattr(cuda, "names", lambda: by_cuda)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return make


def test_without_a_gpu_it_is_the_cpu_and_what_was_looked_for_is_said(here: Here, tmp_path: Path) -> None:
    here()
    looked = f"there is neither {tmp_path}/nvidiactl nor {tmp_path}/dxg"
    assert str(chosen.choose("auto", native=True)) == (
        f"Serving configs/cpu.pbtxt on the CPU: no GPU is here: {looked}"
    )


@pytest.mark.parametrize("node", ["nvidiactl", "dxg"])
def test_a_gpu_is_seen_on_linux_and_in_wsl_2_without_nvidia_smi(
    here: Here, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    here(node, Driver("580.65.06", "13.0", (H100,)))
    assert str(chosen.choose("auto", native=True)) == "Serving config.pbtxt on NVIDIA H100 (9.0): a GPU is here"


def test_where_the_management_library_is_missing_cuda_is_asked(here: Here) -> None:
    here("nvidiactl", None, (["NVIDIA L4 (8.9)"], ""))
    found = chosen.choose("auto", native=True)
    assert (found.config_name, found.device) == (None, "NVIDIA L4 (8.9)")


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ({"node": "nvidiactl"}, "there is a device for a GPU, but no driver that answers: no libcuda"),
        ({"node": "dxg", "by_cuda": ([], "CUDA sees no GPU")}, "but no driver that answers: CUDA sees no GPU"),
        ({"node": "nvidiactl", "known": Driver("580.65.06", "13.0", ())}, "CUDA sees none of the 0 GPUs"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_none_and_the_reason_is_said(
    here: Here, machine: dict[str, object], why: str
) -> None:
    here(**machine)
    assert (found := chosen.choose("auto", native=True)).config_name == "cpu" and why in str(found)
    assert why in chosen.choose("gpu", native=True).absent, "asked for, it is an error"


def test_what_hides_the_gpus_is_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here("nvidiactl", Driver("580.65.06", "13.0", (H100,)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert chosen.choose("auto", native=True).why == "CUDA sees none of the 1 GPUs: CUDA_VISIBLE_DEVICES=7"


def test_the_pip_installed_server_takes_a_gpu_only_where_it_was_asked_for(here: Here) -> None:
    here("nvidiactl", Driver("580.65.06", "13.0", (H100,)))
    assert chosen.choose("auto", native=False).why == (
        "the pip-installed server takes NVIDIA H100 (9.0) only with --device gpu"
    )
    assert chosen.choose("gpu", native=False).config_name is None
    assert chosen.choose("cpu", native=True).config_name == "cpu"


def test_cudas_own_library_names_the_gpus_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = str(stub_libraries.compiled(tmp_path, "libcuda.so.1", stub_libraries.CUDA))
    assert cuda.names(library) == (["NVIDIA H100 (9.0)", "NVIDIA L4 (8.9)"], "")
    monkeypatch.setenv("STUB_CUDA_ERROR", "100")
    assert cuda.names(library) == ([], "CUDA error 100")
    found, why = cuda.names(str(tmp_path / "none.so"))
    assert not found and "none.so: cannot open shared object file" in why


@pytest.mark.parametrize(("asks", "given"), [(True, True), (False, False)])
def test_clients_memory_is_allowed_where_the_server_asks_for_it_and_it_was_asked_for(
    tmp_path: Path, asks: bool, given: bool
) -> None:
    program = tmp_path / "server"
    program.write_text(f"#!/bin/sh\necho '  --{'allow-client-shm' if asks else 'allow-http'} <boolean>'\n")
    program.chmod(0o755)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    key.chmod(0o600)
    for allowed in (True, False):
        settings = Settings(repository=tmp_path, admin_key_file=key, allow_client_shm=allowed, device="cpu")
        command = arguments.tritonserver_command(Triton(program), settings, "triton_1_")
        assert ("--allow-client-shm=true" in command) is (given and allowed)
