"""The plans that a server is given are held against its TensorRT and its GPUs before it starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from contracts.engines import library
from contracts.engines.plans import SERVER_TENSORRT
from deploy.devices import chosen, driver, fit, plans
from deploy.devices.driver import Driver, Gpu
from deploy.errors import RepositoryError
from deploy.running import server
from deploy.triton import environment
from deploy.triton.environment import Triton
from deploy.triton.settings import Settings
from tests import stub_libraries

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "GPU-aaaa", "9.0", 80 << 30)
L4 = Gpu(1, "NVIDIA L4", "GPU-bbbb", "8.9", 24 << 30)
CONFIG = """
platform: "tensorrt_plan"
cc_model_filenames { key: "8.9" value: "model.sm89.plan" }
cc_model_filenames { key: "9.0" value: "model.sm90.plan" }
"""


def plan_of(version: str) -> bytes:
    return b"ftrt" + bytes(20) + bytes(map(int, version.split("."))) + b"layers"


def repository(root: Path, **plans: bytes) -> Path:
    """A network with plans, `sm90` and others, and one that TensorRT does not serve."""
    for model, config in (("net", CONFIG), ("steps", 'backend: "python"')):
        (root / model / "1").mkdir(parents=True)
        (root / model / "config.pbtxt").write_text(config)
    for name, content in plans.items():
        (root / "net" / "1" / f"model.{name}.plan").write_bytes(content)
    return root


def test_a_plan_of_another_tensorrt_is_named_with_both_versions(tmp_path: Path) -> None:
    root = repository(tmp_path, sm90=plan_of("11.4.0.12"), sm89=plan_of(SERVER_TENSORRT))
    assert plans.not_loaded(root, [H100], SERVER_TENSORRT) == {
        "net": f"model.sm90.plan was built by TensorRT 11.4.0.12, and this server has {SERVER_TENSORRT}: "
        "build it anew, python -m export … --target tensorrt"
    }
    assert plans.not_loaded(root, [L4], SERVER_TENSORRT) == {}
    assert plans.not_loaded(root, [], SERVER_TENSORRT).keys() == {"net"}, "no GPU is known: every plan is looked at"


def test_what_is_no_plan_is_said_and_what_is_missing_is_not(tmp_path: Path) -> None:
    assert plans.not_loaded(repository(tmp_path / "a", sm90=b"PK"), [H100], SERVER_TENSORRT) == {
        "net": "model.sm90.plan is no TensorRT plan"
    }
    assert plans.not_loaded(repository(tmp_path / "b"), [H100], SERVER_TENSORRT) == {}, "fit.findings says so"
    assert len(fit.findings(Driver("580.65.06", "13.0", (H100,)), tmp_path / "b", {})) == 1


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"gpu": H100.name}, None),
        ({}, None),  # nobody wrote it down
        (
            {"gpu": "NVIDIA H200", "compatibility": "same_compute_capability"},
            "another precision may be the fastest here",
        ),
        ({"gpu": "NVIDIA H200", "compatibility": "none"}, "may be slow here or not load"),
        ({"gpu": "NVIDIA A100", "compatibility": "ampere_plus", "hardware_compatible": True}, "built here is faster"),
    ],
)
def test_a_plan_that_was_measured_on_another_gpu_is_said(
    tmp_path: Path, engine: dict[str, object], told: str | None, small_manifest: dict[str, object]
) -> None:
    root = repository(tmp_path, sm90=plan_of(SERVER_TENSORRT))
    facts = {"library": "tensorrt", "size_bytes": 1, "build_s": 1.0, "dtype_share": {}, **engine}
    choice = {"file": "model.sm90.plan", "precision": "int8", "reason": "", "engine": facts}
    (root / "net" / "1" / "manifest.json").write_text(json.dumps({**small_manifest, "choices": [choice]}))
    found = list(plans.measured_elsewhere(root, [H100]))
    if told is None:
        assert not found
    else:
        [line] = found
        assert line.startswith("net on GPU 0 (NVIDIA H100 80GB HBM3, 9.0): model.sm90.plan was built and timed on")
        assert line.endswith(told)


@pytest.fixture
def small_manifest() -> dict[str, object]:
    return {
        **dict.fromkeys(("family", "model", "created_at", "command"), "net"),
        "version": 1,
        "source": {
            **dict.fromkeys(("file", "sha256", "data_fingerprint"), ""),
            **dict.fromkeys(("mlflow_run_id", "git_commit", "git_dirty")),
        },
        "tools": {},
        **dict.fromkeys(("calibration_samples", "test_samples"), 1),
        "reference_score": None,
        **{key: [] for key in ("gates", "variants", "trials", "sensitivity", "files")},
        "schema_version": 4,
    }


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ask", lambda: Driver("580.65.06", "13.0", (H100,)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(("tensorrt", "out"), [("11.1.0.106", False), ("11.1.0.107", True)])
def test_a_model_whose_plan_the_servers_library_cannot_load_is_left_out_before_triton_starts(
    tmp_path: Path, on_a_gpu: None, monkeypatch: pytest.MonkeyPatch, tensorrt: str, out: bool
) -> None:
    """The library itself is asked, as the image has it."""
    stub = stub_libraries.tensorrt(tmp_path, tensorrt)
    installed = library.installed
    monkeypatch.setattr(library, "installed", lambda: installed(str(stub)))
    root = repository(tmp_path / "models", sm90=plan_of("11.1.0.106"))
    said: list[str] = []
    looked = server._look_at_gpus(Triton(Path("tritonserver")), Settings(root, strict=False), root, said.append)
    assert looked.keys() == ({"net"} if out else set()) and not said
    if out:
        assert f"and this server has {tensorrt}" in looked["net"]
        with pytest.raises(RepositoryError, match=r"net: model\.sm90\.plan was built by TensorRT 11\.1\.0\.106"):
            server._look_at_gpus(Triton(Path("tritonserver")), Settings(root), root, said.append)


def test_a_library_that_does_not_say_its_version_is_a_warning(
    tmp_path: Path, on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "installed", lambda: (None, "libnvinfer.so.11: cannot open shared object file"))
    root = repository(tmp_path, sm90=plan_of("11.1.0.106"))
    said: list[str] = []
    assert server._look_at_gpus(Triton(Path("tritonserver")), Settings(root), root, said.append) == {}
    assert said == [
        "warning: whether the plans load is not known before: libnvinfer.so.11: cannot open shared object file"
    ]


def test_the_pip_installed_servers_tensorrt_is_what_its_lock_names() -> None:
    assert environment.tensorrt_version(Triton(Path("tritonserver"), native=False)) == (SERVER_TENSORRT, "")


def test_an_image_with_another_tensorrt_is_not_built(tmp_path: Path) -> None:
    """Dockerfile.triton runs this in both stages: it fails where there is no library, or another one."""
    ask = "import sys; from contracts.engines import library; library.LIBRARY = sys.argv[1]; "
    command = "sys.exit(library.main([]))"
    for name, version in (("good", SERVER_TENSORRT), ("bad", "11.4.0.12"), ("none", None)):
        (tmp_path / name).mkdir()
        stub = stub_libraries.tensorrt(tmp_path / name, version) if version else tmp_path / "none.so"
        done = subprocess.run(
            [sys.executable, "-c", ask + command, str(stub)], cwd=layout.ROOT, capture_output=True, text=True
        )
        assert done.returncode == (0 if name == "good" else 1), done
        assert done.stdout.startswith(f"TensorRT {version}") if version else "no TensorRT:" in done.stdout, done
    assert "this repository builds and serves plans of TensorRT 11.1.0.106" in done.stderr


def test_a_gpu_that_was_asked_for_and_is_not_here_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deploy.errors import SettingsError

    monkeypatch.setattr(chosen, "gpus", lambda: ("", "no GPU is here"))
    with pytest.raises(SettingsError, match="--device gpu: no GPU is here"):
        server._configuration(Triton(Path("tritonserver")), Settings(tmp_path, device="gpu"), print)
