"""What `up` says of the GPUs of a machine before Triton does, or where Triton says nothing."""

from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from deploy.devices import driver, fit
from deploy.devices.driver import Driver, Gpu
from deploy.triton import arguments, environment
from deploy.triton.environment import Triton
from deploy.triton.settings import Settings

H100 = Gpu(0, "NVIDIA H100", "GPU-aaaa", "9.0", 80 << 30)
L4 = Gpu(1, "NVIDIA L4", "GPU-bbbb", "8.9", 24 << 30)
GOOD = Driver("580.65.06", "13.0", (H100, L4))
CONFIG = """
platform: "tensorrt_plan"
cc_model_filenames { key: "8.9" value: "model.sm89.plan" }
cc_model_filenames { key: "9.0" value: "model.sm90.plan" }
"""


def repository(root: Path, config: str = CONFIG, plans: tuple[str, ...] = ("model.sm90.plan",)) -> Path:
    version = root / "net" / "2"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(config)
    (version.parent / "1").mkdir()  # an older version may have been made without a GPU
    for plan in plans:
        (version / plan).touch()
    return root


def test_a_gpu_without_a_plan_is_named_with_what_to_do(tmp_path: Path) -> None:
    root = repository(tmp_path)
    [told] = fit.findings(GOOD, root, {})
    assert told.startswith("net version 2 has no plan for GPU 1 (NVIDIA L4, 8.9) (model.sm89.plan): export it on such")
    assert fit.findings(GOOD, root, {"CUDA_VISIBLE_DEVICES": "GPU-a"}) == []
    assert len(fit.findings(GOOD, root, {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"})) == 1


def test_numbers_of_gpus_of_several_kinds_are_warned_of(tmp_path: Path) -> None:
    numbers, order = {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    [told] = fit.findings(GOOD, tmp_path, numbers)
    assert "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID" in told
    alike = replace(GOOD, gpus=(H100, replace(L4, name=H100.name)))
    assert fit.findings(GOOD, tmp_path, numbers | order) == fit.findings(alike, tmp_path, numbers) == []


@pytest.mark.parametrize(
    ("config", "plans", "lacking"),
    [
        (CONFIG, ("model.sm89.plan", "model.sm90.plan"), ""),
        (CONFIG + "instance_group [ { kind: KIND_GPU gpus: [ 0 ] } ]", ("model.sm90.plan",), ""),
        (CONFIG + "instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]", ("model.sm90.plan",), "model.sm89.plan"),
        (CONFIG + "instance_group [ { kind: KIND_GPU count: 2 } ]", ("model.sm90.plan",), "model.sm89.plan"),
        ('platform: "tensorrt_plan"', ("model.plan",), ""),
        ('backend: "tensorrt" default_model_filename: "own.plan"', ("model.plan",), "own.plan"),
        ('backend: "onnxruntime"', (), ""),
    ],
)
def test_every_gpu_that_serves_needs_its_file(
    tmp_path: Path, config: str, plans: tuple[str, ...], lacking: str
) -> None:
    found = fit.findings(GOOD, repository(tmp_path, config, plans), {})
    assert [lacking in told for told in found] == ([True] if lacking else [])


def test_a_driver_and_gpus_that_are_too_old_and_mig_without_slices_are_said(tmp_path: Path) -> None:
    old = Driver("535.183.01", "12.2", (replace(H100, slices=()), Gpu(1, "Tesla P4", "GPU-c", "6.1", 8 << 30)))
    told = "\n".join(fit.findings(old, tmp_path, {}))
    assert "the driver is 535.183.01, and CUDA 13 needs 580 or later" in told
    assert "GPU 1 (Tesla P4, 6.1) is older than what CUDA 13 and TensorRT 11 compile for" in told
    assert "GPU 0 (NVIDIA H100, 9.0) is in MIG mode and has no slice" in told


def test_no_driver_and_no_visible_gpu_are_said(tmp_path: Path) -> None:
    assert "driver does not answer" in fit.findings(None, tmp_path, {})[0]
    [told] = fit.findings(GOOD, tmp_path, {"CUDA_VISIBLE_DEVICES": ""})
    assert told == "CUDA sees none of the 2 GPUs"
    [told] = fit.findings(GOOD, tmp_path, {"CUDA_VISIBLE_DEVICES": "7"})
    assert told.endswith("CUDA_VISIBLE_DEVICES=7")


@pytest.mark.parametrize(
    ("told", "seen"),
    [
        ("0,1", [0, 1]),
        ("1,0", [1, 0]),
        ("1, 9, 0", [1]),
        ("GPU-bb", [1]),
        ("MIG-5", [2]),
        ("-1,0", []),
        ("NoDevFiles", []),
    ],
)
def test_what_cuda_sees_is_what_its_variable_says(told: str, seen: list[int]) -> None:
    gpus = (H100, L4, Gpu(2, "NVIDIA H100", "GPU-cccc", "9.0", 80 << 30, ("MIG-4", "MIG-5")))
    assert [gpu.index for gpu in driver.visible(gpus, {"CUDA_VISIBLE_DEVICES": told})] == seen


class FakeNvml:
    """NVIDIA's management library of a machine with one GPU that is cut into two slices."""

    NVMLError = pynvml.NVMLError

    def __getattr__(self, name: str) -> object:
        known = {
            "nvmlSystemGetCudaDriverVersion_v2": 13010, "nvmlDeviceGetCount": 1, "nvmlSystemGetDriverVersion": "590.1",
            "nvmlDeviceGetCudaComputeCapability": (9, 0), "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetMigMode": [1, 1], "nvmlDeviceGetMaxMigDeviceCount": 7,
            "nvmlDeviceGetMemoryInfo": type("Memory", (), {"total": 141 << 30}), "nvmlInit": None, "nvmlShutdown": None,
        }  # fmt: skip
        assert hasattr(pynvml, name), f"the library has no {name}"
        return lambda *given: known[name]

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802  # NVIDIA's names
        return f"GPU-{index}"

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        if index not in (0, 3):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"MIG-{index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle


def test_the_driver_is_asked_by_the_management_library(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml()
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    gpu = Gpu(0, "NVIDIA H200", "GPU-0", "9.0", 141 << 30, ("MIG-0", "MIG-3"))
    assert driver.ask() == Driver("590.1", "13.1", (gpu,))


def test_where_there_is_no_driver_none_is_found() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert driver.ask() is None


def test_an_option_that_a_server_does_not_know_is_not_given_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_KEY", "k" * 16)
    settings = Settings(tmp_path, http_max_bytes=256 << 20)

    def given(usage: str) -> list[str]:
        program = tmp_path / "server"
        program.write_text(f"#!/bin/sh\necho '{usage}' >&2\n")
        program.chmod(0o755)
        command = arguments.tritonserver_command(Triton(program), settings, "shm")
        return [word for word in command if isinstance(word, str) and "input-size" in word]

    assert given("  --http-max-input-size <integer>") == [f"--http-max-input-size={256 << 20}"]
    assert given("  --http-thread-count <integer>\n\tsee --http-max-input-size") == []
    assert not environment.has_option(Triton(tmp_path / "server"), "thread-count")
