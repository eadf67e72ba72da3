"""Commands work for a user who has no home and no name, or a home that is read-only."""

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from cli import home
from contracts import layout


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A uid without an account, and an environment that says nothing of it."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that it is put back, whoever sets it
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("nobody")
def test_who_has_no_home_and_no_name_is_given_them(tmp_path: Path) -> None:
    home.settle()
    assert Path.home().parent == tmp_path and Path.home().is_dir()
    assert Path.home().stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == f"uid-{os.getuid()}"
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("given", ["/nonexistent", "read-only"])
def test_caches_of_a_home_that_cannot_be_written_go_elsewhere(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / given)
    monkeypatch.setenv("HOME", place)
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != place)  # of root nothing can be kept
    home.settle()
    assert os.environ["HOME"] == place and os.environ["MPLCONFIGDIR"] == "mine"
    assert Path(os.environ["XDG_CACHE_HOME"]).parent == tmp_path


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("given", [None, "/nonexistent"])
def test_where_nothing_can_be_written_a_command_gets_to_say_so(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    if given:
        monkeypatch.setenv("HOME", given)
    before = dict(os.environ)
    home.settle()
    assert dict(os.environ) == before | {"LOGNAME": f"uid-{os.getuid()}"}


@pytest.mark.usefixtures("nobody")
def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "me")
    before = dict(os.environ)
    home.settle()
    assert dict(os.environ) == before


def test_a_home_that_was_made_up_goes_when_the_command_ends(tmp_path: Path) -> None:
    program = (
        "import os, pwd; from cli.run import run_command_line\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "def main():\n    print(os.environ['HOME']); return 0\n"
        "run_command_line(main, ValueError)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=layout.ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == tmp_path and not list(tmp_path.iterdir())
