"""A project folder that was moved or copied, or is mounted elsewhere: its releases are registered where it is.

A real MLflow store, looked at from outside with MLflow's own client, which knows nothing of all this.
"""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.progress import Progress
from contracts import layout, manifest
from export import commands
from export.errors import RegistryError
from export.registry import checkpoint, versions
from tests.command_lines import run_here
from tests.export.test_registry import CHECKPOINT, published
from training import artifact_roots, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

HERE = Path("artifacts", "mlflow")


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a training run and its release, registered; two more releases lie ready."""
    root = tmp_path / "Prüfstand #1, 100%"
    (root / "artifacts").mkdir(parents=True)
    shutil.copy(empty_store, root / "artifacts" / "mlflow.db")
    work_in(root, monkeypatch)
    client = looking_at(root)
    run_id = client.create_run(client.create_experiment("fashion", tracking.artifact_location())).info.run_id
    (root / "best.ckpt").write_bytes(CHECKPOINT)
    tracking.files_of(client, run_id).log_artifact(str(root / "best.ckpt"), "checkpoint")
    for number in (1, 2, 3):
        published(root / str(number), run_id, number)
    assert registered(root, 1) == "models:/fashion/1"
    return root


def work_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ARTIFACTS_DIR", str(root / "artifacts"))


def registered(root: Path, version: int) -> str:
    return versions.register(manifest.read(root / str(version)), root / str(version))


def looking_at(root: Path) -> "MlflowClient":
    from mlflow import MlflowClient
    from sqlalchemy.engine import URL

    return MlflowClient(URL.create("sqlite", database=f"{root}/artifacts/mlflow.db").render_as_string())


def sources(root: Path) -> list[Path]:
    """Where MLflow says that the files of the registered versions are, oldest first."""
    found = looking_at(root).search_model_versions("name = 'fashion'", order_by=["version_number ASC"])
    paths = [artifact_roots._local(str(version.source)) for version in found]
    assert all(paths)
    return [path for path in paths if path]


def are_complete(root: Path, versions: int) -> bool:
    """Whether each version's files lie below `root`, and are what MLflow's own client finds."""
    client, expected = looking_at(root), {"release/manifest.json", "release/model.onnx"}
    runs = client.search_model_versions("name = 'fashion'")
    listed = [{file.path for file in client.list_artifacts(run.run_id or "", "release")} for run in runs]
    here = [path for path in sources(root) if path.is_relative_to(root / HERE) and (path / "manifest.json").is_file()]
    return listed == [expected] * versions and len(here) == versions


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_moved_project_registers_where_it_is_and_finds_what_it_had(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = project.rename(tmp_path / "neu %20 # ü?x=1&y")
    work_in(moved, monkeypatch)
    assert checkpoint.download("models:/fashion@challenger", tmp_path / "to").read_bytes() == CHECKPOINT
    assert registered(moved, 2) == "models:/fashion/2"
    assert are_complete(moved, 2) and not project.exists()
    assert looking_at(moved).get_experiment_by_name("fashion").artifact_location == (moved / HERE).as_uri()  # type: ignore[union-attr]


def test_a_copy_registers_in_itself_and_leaves_the_original_as_it_was(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(project)
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    work_in(copy, monkeypatch)
    assert registered(copy, 2) == "models:/fashion/2"
    assert are_complete(copy, 2)
    assert contents(project) == before
    work_in(project, monkeypatch)
    assert registered(project, 3) == "models:/fashion/2"  # the second that it has
    assert are_complete(project, 2)


def test_a_mounted_folder_stays_its_owners(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: files are read and written here, and recorded by the paths that the owner knows."""
    mounted = project.rename(tmp_path / "app")
    work_in(mounted, monkeypatch)
    monkeypatch.setenv("ARTIFACTS_OUTSIDE", "/not/what/the/store/says")
    assert checkpoint.download("models:/fashion@challenger", tmp_path / "to").read_bytes() == CHECKPOINT
    assert registered(mounted, 2) == "models:/fashion/2"
    assert tracking.artifact_location() == (project / HERE).as_uri()  # of a family that is new
    assert not project.exists()
    mounted.rename(project)
    assert are_complete(project, 2)  # nothing of ours has opened it since


def test_a_store_that_is_made_in_a_container_has_the_paths_outside(
    project: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of somebody else's is exported there, and was never trained outside."""
    mounted, outside = tmp_path / "app", tmp_path / "outside"
    (mounted / "artifacts").mkdir(parents=True)
    shutil.copy(empty_store, mounted / "artifacts" / "mlflow.db")
    shutil.copytree(project / "1", mounted / "1")
    work_in(mounted, monkeypatch)
    monkeypatch.setenv("ARTIFACTS_OUTSIDE", str(outside / "artifacts"))
    assert registered(mounted, 1) == "models:/fashion/1"
    assert registered(mounted, 1) == "models:/fashion/1"
    mounted.rename(outside)
    assert are_complete(outside, 1)


@pytest.mark.parametrize("told", [True, False], ids=["our image", "another image"])
def test_a_release_registered_in_a_mount_namespace_is_found_from_outside(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """The real thing but for the image: the artifacts at another path, the host's path not there at all."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to unshare --mount: root")
    app, mounts, outside = tmp_path / "app", [], str(project / "artifacts")
    for folder in ("artifacts", "2"):
        (app / folder).mkdir(parents=True)
        mounts.append(f'mount --bind "$1/{folder}" "$2/{folder}"')
    program = (
        "import sys; from pathlib import Path; from contracts import manifest; from export.registry import versions;"
        "print(versions.register(manifest.read(Path(sys.argv[1])), Path(sys.argv[1])))"
    )
    script = [*mounts, 'mount -t tmpfs none "$1"', f'exec {sys.executable} -c "$3" "$2/2"']
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join(script), "sh", project, app, program],
        cwd=layout.ROOT,
        env={**os.environ, "ARTIFACTS_DIR": str(app / "artifacts"), **({"ARTIFACTS_OUTSIDE": outside} if told else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("models:/fashion/2\n", 0), done.stderr
    assert not list((app / "artifacts").iterdir())  # outside, nothing is mounted there
    if not told:  # then the host's next command brings it back
        tracking.open_store()
    assert are_complete(project, 2)


def test_what_was_lost_is_logged_again_by_registering_again(project: Path) -> None:
    [lost] = sources(project)
    shutil.rmtree(lost)
    assert registered(project, 1) == "models:/fashion/1"
    assert are_complete(project, 1)


def test_what_was_written_under_the_old_path_is_found_there(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version of this project registered there what was exported after the move."""
    moved = project.rename(tmp_path / "moved")
    work_in(moved, monkeypatch)
    client = looking_at(moved)
    experiment = client.get_experiment_by_name("fashion")
    assert experiment
    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_artifact(run_id, str(moved / "best.ckpt"), "checkpoint")
    assert list(project.rglob("best.ckpt"))
    assert registered(moved, 2) == "models:/fashion/2"
    assert are_complete(moved, 2)
    assert checkpoint.download(run_id, tmp_path / "to").read_bytes() == CHECKPOINT


def test_a_folder_that_a_user_gave_an_experiment_is_left_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = [(tmp_path / "disk" / "mlflow").as_uri(), "s3://bucket/mlflow", "/somewhere/mlruns/7"]
    (tmp_path / "disk" / "mlflow").mkdir(parents=True)
    for number, address in enumerate(theirs):
        looking_at(project).create_experiment(f"theirs {number}", address)
    moved = project.rename(tmp_path / "moved")
    work_in(moved, monkeypatch)
    tracking.open_store()
    found = [looking_at(moved).get_experiment_by_name(f"theirs {number}") for number in range(len(theirs))]
    assert [experiment.artifact_location for experiment in found if experiment] == theirs
    assert are_complete(moved, 1)


def test_a_store_that_is_named_is_left_alone(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = project.rename(tmp_path / "moved")
    before = contents(moved)
    work_in(tmp_path / "another", monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'artifacts' / 'mlflow.db'}")
    assert tracking.open_store() == f"sqlite:///{moved / 'artifacts' / 'mlflow.db'}"
    assert tracking.artifact_location() is None
    assert contents(moved) == before and not (tmp_path / "another").exists()


def test_our_own_store_is_ours_by_its_name_too(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow sets MLFLOW_TRACKING_URI to what a training told it."""
    moved = project.rename(tmp_path / "moved")
    work_in(moved, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'artifacts' / 'mlflow.db'}")
    assert registered(moved, 2) == "models:/fashion/2"
    assert are_complete(moved, 2)


def test_links_to_the_folder_are_no_move(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mv artifacts /large/disk` and a link in its place."""
    (tmp_path / "large").mkdir()
    (project / "artifacts").rename(tmp_path / "large" / "artifacts")
    (project / "artifacts").symlink_to(tmp_path / "large" / "artifacts")
    before = contents(tmp_path / "large")
    work_in(project, monkeypatch)
    tracking.open_store()
    assert contents(tmp_path / "large") == before
    assert checkpoint.download("models:/fashion@challenger", tmp_path / "to").read_bytes() == CHECKPOINT


def test_a_folder_that_is_not_ours_is_an_error_at_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the two minutes for which MLflow tries. A file in its place: root may write to any folder."""
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path / "no folder"))
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"no folder/mlflow\.db"):
        registered(project, 2)
    assert time.monotonic() - started < 30


def test_a_store_that_is_read_only_says_so_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A mount, or somebody else's file: neither holds root back, so a trigger does."""
    with contextlib.closing(sqlite3.connect(project / "artifacts" / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TRIGGER closed BEFORE INSERT ON runs BEGIN SELECT raise(ABORT, 'read-only'); END")
    with pytest.raises(RegistryError, match=r"Note: \(sqlite3\.IntegrityError\) read-only\n"):
        registered(project, 2)
    assert capfd.readouterr() == ("", "")


def test_a_failed_registration_says_so_and_the_command_that_it_names_does_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "my models" / "fashion_classifier" / "2"
    shutil.copytree(project / "2", directory)
    (project / "artifacts" / "mlflow").rename(project / "artifacts" / "away")
    (project / "artifacts" / "mlflow").touch()  # a file in its place: root may write to any folder
    with pytest.raises(RegistryError, match="fashion_classifier version 2 is published, but not registered") as failed:
        commands._register(manifest.read(directory), directory, Progress())
    (project / "artifacts" / "mlflow").unlink()
    (project / "artifacts" / "away").rename(project / "artifacts" / "mlflow")
    [command] = re.findall(r"python -m (export register .*)", str(failed.value))
    done = run_here(shlex.split(command), os.environ)
    assert (done.stdout, done.returncode) == ("Registered as models:/fashion/2, alias challenger\n", 0), done.stderr
    assert are_complete(project, 2)


def test_a_user_without_a_home_or_a_name_registers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a container that runs as the owner of the files; MLflow asks for a home when it is imported."""

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setenv("HOME", "")
    assert registered(project, 2) == "models:/fashion/2"
    assert os.environ["HOME"] == tempfile.gettempdir()


def many_runs(folder: Path, number: int) -> Path:
    """A store of the tables that MLflow had before it had others, whose folder has moved."""
    database = folder / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, artifact_uri TEXT)")
        connection.execute("INSERT INTO experiments VALUES (1, 'file:///gone/mlflow'), (2, NULL)")
        rows = [(f"{run:x}", f"file:///gone/mlflow/{run:x}/artifacts") for run in range(number)]
        connection.executemany("INSERT INTO runs VALUES (?, ?)", rows)
    return database


def addresses(database: Path) -> set[str]:
    """The roots of the runs."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return {uri.rsplit("/", 2)[0] for (uri,) in connection.execute("SELECT artifact_uri FROM runs")}


FOLLOW = "import sys; from pathlib import Path; from training import artifact_roots as r; r._BUSY_S = 60;"


def test_a_process_killed_half_way_leaves_all_as_it_was_and_the_next_one_ends_it(tmp_path: Path) -> None:
    database, here = many_runs(tmp_path, 3000), tmp_path / "mlflow"
    dying = (  # a small cache, so that half of it is in the file already
        "import os, signal, sqlite3, contextlib; opened = r._opened\n"
        "@contextlib.contextmanager\n"
        "def small(database):\n"
        "    with opened(database) as c:\n"
        "        c.execute('PRAGMA cache_size = 10')\n"
        "        seen = []\n"
        "        c.set_trace_callback(lambda s: s.startswith('UPDATE runs') and (seen.append(s),\n"
        "            len(seen) > 2000 and os.kill(os.getpid(), signal.SIGKILL)))\n"
        "        yield c\n"
        "r._opened = small\n"
    )
    call = "r.follow(Path(sys.argv[1]), Path(sys.argv[2]))"
    command = [sys.executable, "-c", f"{FOLLOW}\n{dying}{call}", str(database), str(here)]
    assert subprocess.run(command, cwd=layout.ROOT, check=False).returncode == -signal.SIGKILL
    assert database.with_name("mlflow.db-journal").stat().st_size  # what makes it undone
    artifact_roots.follow(database, here)
    assert addresses(database) == {here.as_uri()}


def test_several_processes_at_once_do_it_once(tmp_path: Path) -> None:
    database, here = many_runs(tmp_path, 2000), tmp_path / "mlflow"
    command = [
        sys.executable,
        "-c",
        f"{FOLLOW} r.follow(Path(sys.argv[1]), Path(sys.argv[2]))",
        str(database),
        str(here),
    ]
    processes = [subprocess.Popen(command, cwd=layout.ROOT) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert addresses(database) == {here.as_uri()}


@pytest.mark.parametrize("content", [None, b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_store_is_left_to_mlflow_to_tell(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mlflow.db").write_bytes(content)
    artifact_roots.follow(tmp_path / "mlflow.db", tmp_path / "mlflow")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if content is None else [content])


def test_a_store_that_cannot_be_written_to_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, here = many_runs(tmp_path, 3), tmp_path / "mlflow"
    monkeypatch.setattr(artifact_roots, "_BUSY_S", 0.1)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        artifact_roots.follow(database, here)
        assert (
            artifact_roots.moved(database, here).now("file:///gone/mlflow/1/artifacts")
            == (here / "1" / "artifacts").as_uri()
        )
        other.execute("ROLLBACK")
    assert addresses(database) == {"file:///gone/mlflow"}
