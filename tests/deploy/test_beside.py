"""Folders of a model repository that are no models: models that read `../common` find it, also after a change."""

from pathlib import Path

import pytest

from deploy.served import beside, content, private
from tests.conftest import Workspace, free_ports, port_options
from tests.deploy.conftest import write_model

READER = """
import pathlib, sys
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        words = pathlib.Path(args["model_repository"], "..", "common", "words.txt")
        print("it reads", words.read_text(), flush=True)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", x)]) for x in map(self.given, requests)]

    def given(self, request):
        return pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
"""


def repository(root: Path) -> Path:
    write_model(root, "reader", READER)
    for folder in ("common", "guessed/1", ".git", "datasets"):
        (root / folder).mkdir(parents=True)
    (root / "common" / "words.txt").write_text("one")
    return root


def test_a_folder_that_is_no_model_is_copied_and_what_was_changed_in_it_is_said(tmp_path: Path) -> None:
    root = repository(tmp_path / "models")
    assert beside.names(root) == ["common", "datasets"]
    with (root / "datasets" / "large").open("wb") as large:
        large.truncate(65 << 20)
    served, said = private.make(None), list[str]()

    def refresh() -> list[str]:
        return beside.refresh(root, served.repository, content.same, said.append, None)

    try:
        assert refresh() == ["common"]
        assert "datasets, no model and over 64 MB, is not copied" in said[0]
        assert refresh() == []
        (root / "common" / "words.txt").write_text("two")
        assert refresh() == ["common"]
        assert (served.repository / "common" / "words.txt").read_text() == "two"
        (root / "common" / "gone").symlink_to("nowhere")
        assert refresh() == [], "what was there stays"
        assert any("common, no model, is not copied: " in line for line in said)
        assert (served.repository / "common" / "words.txt").read_text() == "two"
    finally:
        served.remove()


@pytest.mark.heavy
def test_a_model_that_reads_it_has_what_lies_there_at_its_next_reload(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    repository(workspace.repository)
    (workspace.repository / "guessed" / "1").rmdir()
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *port_options(free_ports()))
    log = workspace.root / "artifacts" / "server" / "triton.jsonl"
    assert log.read_text().count("it reads one") == 1
    (workspace.repository / "common" / "words.txt").write_text("two")
    said = workspace.must("deploy", "reload")
    assert "  common: changed; models of no release are loaded anew, as they may read it" in said
    assert log.read_text().count("it reads two") == 1
    assert "common: changed" not in workspace.must("deploy", "reload")
    assert log.read_text().count("it reads") == 2
    workspace.down()
