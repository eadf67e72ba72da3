"""What serves is sealed as the next version: the same graph and plans, with what lies around them today."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from contracts import bundle, golden, manifest, repository
from contracts.golden import GoldenRequest
from tests.conftest import Workspace
from tests.contracts.test_signing import key_pair
from tests.small_releases import NETWORK, PYTHON, ensemble, files, published, written


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """Releases 1 and 2 of `net`, from before bundles, and a newer one that is parked."""
    root = written(
        workspace.repository,
        {
            "net/config.pbtxt": NETWORK,
            "way/config.pbtxt": ensemble("before", "net"),
            "before/config.pbtxt": PYTHON,
            "before/1/model.py": "as it is today",
        },
    )
    published(root, 1), published(root, 2), published(root, 3, ".parked-3")
    return root


def adopt(workspace: Workspace, *arguments: str) -> tuple[int, str, str]:
    done = workspace.run("export", "adopt", "--no-serve", "--repository", workspace.repository, *arguments)
    return done.returncode, done.stdout, done.stderr


def test_the_next_version_has_the_same_graph_and_what_lies_around_it_today(workspace: Workspace, root: Path) -> None:
    before = files(root / "net" / "2")
    code, out, _ = adopt(workspace, "net")
    assert code == 0
    assert "Sealed net version 2 as version 4, with net, way, before\n" in out
    assert out.endswith("Next: python -m deploy reload net\n")
    told = manifest.verify(root / "net" / "4")
    assert (told.version, told.adopted_from, told.served, told.models) == (4, 2, None, ("net", "way", "before"))
    assert (root / "net" / "4" / "model.onnx").read_text() == "graph 2"
    (root / "before" / "1" / "model.py").write_text("tomorrow's")
    held = bundle.of(root, "net", 4)
    assert held.sealed and files(held.models["before"])["1/model.py"] == "as it is today"
    assert files(root / "net" / "2") == before
    assert repository.versions(root / "net") == [1, 2, 4] and repository.parked(root / "net") == [3]


def test_what_is_sealed_is_not_sealed_again(workspace: Workspace, root: Path) -> None:
    assert adopt(workspace)[0] == 0
    assert adopt(workspace) == (0, "net version 4 serves, and is sealed\n", "")


def test_golden_requests_are_kept_but_for_ensembles_that_are_gone(workspace: Workspace, root: Path) -> None:
    values = {"x": np.ones((1, 2), np.float32)}
    golden.write([GoldenRequest(name, values, values) for name in ("net", "net", "gone")], root / "net" / "2")
    published(root, 2)  # again, with its golden requests
    assert adopt(workspace)[0] == 0
    assert manifest.verify(root / "net" / "4").golden == {"net": 2}
    assert [request.model for request in golden.read(root / "net" / "4")] == ["net", "net"]


def test_it_is_signed_where_a_key_is_configured(
    workspace: Workspace, root: Path, signing_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(workspace.root, "ours", ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("SIGNING_KEY", str(private))
    assert adopt(workspace)[0] == 0
    done = workspace.run(
        "export", "verify", "net", "4", "--verify-key", str(public), "--repository", workspace.repository
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ("net/2/model.onnx", "was not sealed: {root}/net/2 is not what was published\nNote: changed: model.onnx"),
        ("way/config.pbtxt", "was not sealed: {root}/way/config.pbtxt is no model configuration"),
    ],
)
def test_what_cannot_be_sealed_is_said_and_keeps_no_other_from_it(
    workspace: Workspace, root: Path, spoiled: str, told: str
) -> None:
    written(root, {"zulu/config.pbtxt": NETWORK, "zulu/1/model.onnx": "zulu"})
    zulu = published(root, 9)
    zulu.rename(root / "zulu" / "2")
    raw = json.loads((root / "zulu" / "2" / "manifest.json").read_text())
    (root / "zulu" / "2" / "manifest.json").write_text(json.dumps(raw | {"model": "zulu", "version": 2}))
    (root / spoiled).write_text('model_name: "net"')
    code, out, err = adopt(workspace)
    assert code == 1 and f"error: net version 2 {told.format(root=root)}" in err
    assert "Sealed zulu version 2 as version 3" in out
    assert repository.versions(root / "net") == [1, 2] and not [*(root / "net").glob(".staging-*")]


def test_what_was_never_proven_is_exported_instead(workspace: Workspace, root: Path) -> None:
    (root / "net" / "2" / "manifest.json").unlink()
    code, _, err = adopt(workspace, "net")
    assert code == 1 and "manifest.json does not exist\nHint: publish a version: python -m export FAMILY" in err
