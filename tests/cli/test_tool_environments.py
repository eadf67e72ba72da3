"""An environment of its own is made when it is first asked for, once, and again when its lock has changed."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.installing import tool_environments
from cli.installing.environments import InstallError
from tests.cli.test_environments import hashed, make_wheel


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the locks, which pip resolves from wheels beside them alone."""
    monkeypatch.setattr(tool_environments, "_LOCKS", tmp_path)
    monkeypatch.setenv("TOOL_ENVIRONMENTS", str(tmp_path / "made"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "tiny.lock").write_text(hashed(make_wheel(tmp_path, "1.0")))
    return tmp_path


def version_in(programs: Path) -> str:
    """What the package that is installed there says of itself."""
    told = [programs / "python", "-c", "import tiny; print(tiny.VERSION)"]
    return subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_made_once_whoever_asks_and_anew_when_its_lock_has_changed(locks: Path) -> None:
    assert tool_environments.names() == ["tiny"]
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        [programs] = {*pool.map(lambda _: tool_environments.programs("tiny", said.append), range(4))}
    assert version_in(programs) == "1.0"
    [line] = said
    assert line.startswith("Making the environment for tiny in ") and line.endswith("(once; a few minutes)")

    (locks / "tiny.lock").write_text(hashed(make_wheel(locks, "2.0")))
    assert tool_environments.programs("tiny", said.append) == programs
    assert version_in(programs) == "2.0"
    assert said[1].startswith("Bringing the environment for tiny in ") and len(said) == 2


def test_one_that_could_not_be_made_is_made_by_the_next_who_asks(locks: Path) -> None:
    whole = (locks / "tiny.lock").read_text()
    (locks / "tiny.lock").write_text("tiny==3.0 --hash=sha256:" + "0" * 64)
    with pytest.raises(InstallError, match=r"tiny\.lock"):
        tool_environments.programs("tiny", lambda line: None)
    (locks / "tiny.lock").write_text(whole)
    assert version_in(tool_environments.programs("tiny", lambda line: None)) == "1.0"
