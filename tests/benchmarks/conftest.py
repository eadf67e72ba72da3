"""One server with a tiny model of every kind, which the tests of the tools share."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from benchmarks import workload
from benchmarks.workload import Workload
from deploy.triton.state import Running, recorded
from tests.benchmarks import small_releases
from tests.conftest import Workspace, free_ports, port_options


@dataclass(frozen=True)
class Site:
    """The server that has them all."""

    workspace: Workspace
    up: Running

    @property
    def url(self) -> str:
        return f"http://{self.up.http}"

    def sent(self, model: str) -> Workload:
        return workload.find(self.url, model, self.workspace.repository)

    def bench(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.workspace.run_here("benchmarks", *arguments)


@pytest.fixture(scope="session")
def any_model(tmp_path_factory: pytest.TempPathFactory, shared: Workspace) -> Iterator[Site]:
    workspace = Workspace(tmp_path_factory.mktemp("any_model"))
    small_releases.write(workspace.repository)
    artifacts, tools = workspace.root / "artifacts", shared.root / "artifacts" / "tools"
    artifacts.mkdir()
    tools.mkdir(parents=True, exist_ok=True)
    (artifacts / "tools").symlink_to(tools)  # perf_analyzer is fetched once a session
    up = ("deploy", "up", "--detach", "--drain", "3", "--repository", workspace.repository)
    said = workspace.must(*up, *port_options(free_ports()))
    [called] = re.findall("Next: python -m clients infer (.*?)   ", said)
    assert (workspace.repository / called).is_dir(), "the line names one that is served"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARTIFACTS_DIR", str(artifacts))
        found = recorded()
    assert found is not None
    yield Site(workspace, found)
    workspace.down()


@pytest.fixture
def here(any_model: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """What is called in this process finds that server, too."""
    monkeypatch.setenv("ARTIFACTS_DIR", any_model.workspace.environment["ARTIFACTS_DIR"])
    return any_model
