"""The server environment is what its lock says, and is made anew when that changes."""

import subprocess
from pathlib import Path

import pytest

from contracts import layout
from deploy import environment
from deploy.errors import SetupError


@pytest.fixture(scope="module")
def triton() -> environment.Triton:
    return environment.pip_installed(print)


def test_the_server_is_a_real_tritonserver(triton: environment.Triton) -> None:
    done = subprocess.run(
        [triton.executable, "--help"], env=dict(triton.environment), capture_output=True, text=True, check=False
    )
    assert "--model-control-mode" in done.stdout + done.stderr


def test_numpy_is_one_that_the_stubs_can_read(triton: environment.Triton) -> None:
    """With numpy 2 every output tensor would be empty, without an error."""
    python = environment.HOME / "bin" / "python"
    version = subprocess.run(
        [python, "-c", "import numpy; print(numpy.__version__)"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("1.")


def test_both_environments_run_the_same_onnxruntime() -> None:
    """What is proven offline must be what is served."""
    project = (layout.ROOT / "requirements.lock").read_text().splitlines()
    server = (layout.ROOT / "deploy" / "server.lock").read_text().splitlines()
    [ours] = [line.partition("==")[2] for line in project if line.startswith("onnxruntime-gpu==")]
    assert f"onnxruntime=={ours}" in server


def test_a_failed_install_says_why_and_is_not_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "server.lock"
    lock.write_text("there-is-no-such-package-as-this==1\n")
    monkeypatch.setattr(environment, "HOME", tmp_path / "venv")
    monkeypatch.setattr(environment, "_LOCK_FILE", lock)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for _ in range(2):
        with pytest.raises(SetupError, match="No matching distribution found for there-is-no-such-package"):
            environment.pip_installed(print)
