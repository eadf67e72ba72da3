"""The server environment is what its locks and backends say; what changes is made beside what is running."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import layout
from contracts.engines.plans import SERVER_TENSORRT
from deploy.errors import SetupError
from deploy.triton import environment


@pytest.fixture(scope="module")
def triton() -> environment.Triton:
    return environment.pip_installed(print)


@pytest.fixture
def home(triton: environment.Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, with the packages that are installed already."""
    [packages] = [path for path in triton.executable.parents if path.parent == environment.HOME]
    home = tmp_path / "home"
    home.mkdir()
    (home / packages.name).symlink_to(packages)
    monkeypatch.setattr(environment, "HOME", home)
    return home


@pytest.fixture
def changed_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The backends of the checkout, to be changed."""
    backends = tmp_path / "backends"
    shutil.copytree(environment._BACKENDS, backends)
    monkeypatch.setattr(environment, "_BACKENDS", backends)
    return backends


def backends_of(triton: environment.Triton) -> Path:
    [option] = [option for option in triton.arguments if option.startswith("--backend-directory=")]
    return Path(option.partition("=")[2])


def test_the_server_is_a_real_tritonserver(triton: environment.Triton) -> None:
    done = subprocess.run(
        [triton.executable, "--help"], env=dict(triton.environment), capture_output=True, text=True, check=False
    )
    assert "--model-control-mode" in done.stdout + done.stderr


def test_numpy_is_one_that_the_stubs_can_read(triton: environment.Triton) -> None:
    """With numpy 2 every output tensor would be empty, without an error."""
    python = Path(triton.environment["PATH"].split(os.pathsep)[0]) / "python"
    version = subprocess.run(
        [python, "-c", "import numpy; print(numpy.__version__)"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("1.")


def test_both_environments_run_the_same_versions_of_what_proves_a_release() -> None:
    """What is proven offline must be what is served."""
    project, server, gpu = (
        dict(re.findall(r"^(\S+)==(\S+)", (layout.ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "deploy/server.lock", "deploy/server-gpu.lock")
    )
    assert server["onnxruntime"] == project["onnxruntime-gpu"]
    assert gpu["cuda-bindings"] == project["cuda-bindings"]
    assert gpu["tensorrt-cu13"] == SERVER_TENSORRT


def test_a_changed_backend_is_put_beside_the_old_one_and_installs_nothing(home: Path, changed_backends: Path) -> None:
    said: list[str] = []
    before = environment.pip_installed(said.append)
    with (changed_backends / "onnxruntime" / "model.py").open("a") as source:
        source.write("# changed\n")
    after = environment.pip_installed(said.append)
    assert not said
    assert after.executable == before.executable
    for triton, changed in ((before, False), (after, True)):
        source_text = (backends_of(triton) / "onnxruntime" / "model.py").read_text()
        assert source_text.endswith("# changed\n") == changed


def test_what_is_old_goes_once_no_process_runs_from_it(home: Path, changed_backends: Path) -> None:
    def made(content: str) -> Path:
        (changed_backends / "onnxruntime" / "model.py").write_text(content)
        return backends_of(environment.pip_installed(print))

    idle, running, recent = made("1"), made("2"), made("3")
    for path in (idle, running):
        os.utime(path / "made", (0, 0))
    half_made = home / "backends-0123456789ab"
    half_made.mkdir()
    stub = running / "python" / "triton_python_backend_stub"
    shutil.copy2("/bin/sleep", stub)
    with subprocess.Popen([stub, "60"]) as process:
        made("4")
        assert [path.exists() for path in (idle, half_made, running, recent)] == [False, False, True, True]
        process.kill()
    made("4")
    assert not running.exists()


@pytest.fixture
def private_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_server_may_run_as_another_user_than_who_made_it(home: Path, private_umask: None) -> None:
    backends = backends_of(environment.pip_installed(print))
    (backends / "made").unlink()  # only who makes it reads this one
    for path in (home, backends, *backends.rglob("*")):
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert mode & stat.S_IXOTH or not path.is_dir(), path
    assert (backends / "python" / "triton_python_backend_stub").stat().st_mode & stat.S_IXOTH


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_tensorrt_is_not_installed_where_no_gpu_could_run_it() -> None:
    with pytest.raises(SetupError, match=r"this machine has no NVIDIA GPU.*\nHint: .*--device cpu"):
        environment.pip_installed(print, gpu=True)


def test_a_failed_install_says_why_and_is_not_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "server.lock"
    lock.write_text(f"there-is-no-such-package-as-this==1 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(environment, "HOME", tmp_path / "venv")
    monkeypatch.setattr(environment, "_LOCK_FILE", lock)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for _ in range(2):
        with pytest.raises(SetupError, match="No matching distribution found for there-is-no-such-package"):
            environment.pip_installed(print)


def test_an_environment_that_an_image_holds_is_used_as_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its file system is read-only: nothing is locked, touched, removed or made."""
    made = environment.pip_installed(print)
    other = home / "packages-another"
    other.mkdir()
    before = {path: path.stat().st_mtime_ns for path in (*home.glob("*"), *home.glob("*/made"))}
    lock = home.with_name(f"{home.name}.lock")
    lock.unlink()
    monkeypatch.setattr(environment, "_is_read_only", lambda: True)  # of root nothing can be kept
    assert environment.pip_installed(print) == made
    assert before == {path: path.stat().st_mtime_ns for path in (*home.glob("*"), *home.glob("*/made"))}
    assert not lock.exists()


def test_an_environment_that_an_image_holds_and_is_another_checkouts_is_refused(
    home: Path, changed_backends: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.pip_installed(print)
    (changed_backends / "onnxruntime" / "model.py").write_text("# another")
    monkeypatch.setattr(environment, "_is_read_only", lambda: True)
    with pytest.raises(SetupError, match=r"is not the one of this checkout.*\nHint: build the image again"):
        environment.pip_installed(print)
