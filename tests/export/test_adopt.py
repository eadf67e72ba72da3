"""What serves is sealed as the next version: the same graph and plans, with what lies around them today."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from contracts import bundle, golden, manifest, repository, signing
from contracts.golden import GoldenRequest
from contracts.signing import Signer, Trust
from contracts.trust import identity
from tests.cli.test_environments import make_wheel
from tests.conftest import Workspace
from tests.contracts.signers import key_pair
from tests.small_releases import NETWORK, PYTHON, ensemble, files, published, written
from tests.workspace import MODEL, POSTPROCESS


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


def test_packages_of_a_step_are_locked_before_they_are_sealed(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: a lock that is of its requirements.txt is part of the release as it is, and so of the next one."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    make_wheel(workspace.root, "1.0")
    (root / "before" / "requirements.txt").write_text(f"# ours\n--find-links {workspace.root}\ntiny\n")
    assert adopt(workspace)[0] == 0
    sealed = files(bundle.of(root, "net", 4).models["before"])
    assert re.search(r"^tiny==1\.0 --hash=sha256:[0-9a-f]{64}$", sealed["requirements.lock"], re.MULTILINE)
    lock = root / "before" / "requirements.lock"
    assert lock.read_text() == sealed["requirements.lock"]
    written_at = lock.stat().st_mtime_ns
    published(root, 5)
    assert adopt(workspace)[0] == 0
    assert lock.stat().st_mtime_ns == written_at


def test_what_cannot_be_locked_is_not_sealed(workspace: Workspace, root: Path) -> None:
    (root / "before" / "requirements.txt").write_text("a package\n")
    code, _, err = adopt(workspace)
    assert code == 1 and "the packages of a step are not locked: " in err and "before/requirements.txt" in err
    assert repository.versions(root / "net") == [1, 2]


def test_a_triton_serves_what_is_adopted_before_it_is_published(released: Workspace) -> None:
    """A release as it was before bundles, with a step that has since learned to answer otherwise: it is refused."""
    before = released.model / "1"
    shutil.rmtree(before / bundle.FOLDER)
    told = dataclasses.replace(manifest.read(before), models=(), served=None, files=manifest.files_of(before))
    manifest.write(told, before)
    labels = released.repository / POSTPROCESS / "labels.txt"
    names = labels.read_text()
    labels.write_text("\n".join(reversed(names.splitlines())))
    done = released.run("export", "adopt", MODEL, "--repository", released.repository)
    assert done.returncode == 1 and "the release is not served as it was proven" in done.stderr
    assert repository.versions(released.model) == [1]
    labels.write_text(names)
    released.must("export", "adopt", MODEL, "--repository", released.repository)
    made = manifest.verify(released.model / "2")
    assert (made.served, made.adopted_from, made.golden) == ("2.51.0", 1, told.golden)


def test_with_a_key_what_no_export_made_is_sealed_and_signed(
    workspace: Workspace, signing_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python model by itself, an ensemble over two steps, and a graph that somebody put there."""
    root = written(
        workspace.repository,
        {
            "alone/config.pbtxt": PYTHON,
            "alone/3/model.py": "alone",
            "alone/labels.txt": "a",
            "way/config.pbtxt": ensemble("one", "two"),
            "way/1/README": "",
            "one/config.pbtxt": PYTHON,
            "one/1/model.py": "one",
            "one/1/helper.pyc": "planted",
            "two/config.pbtxt": NETWORK.replace("net", "two"),
            "two/1/model.onnx": "graph",
        },
    )
    private, public = key_pair(workspace.root, "ours", ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("SIGNING_KEY", str(private))
    code, out, err = adopt(workspace)
    assert (code, err) == (0, "")
    assert "Sealed two version 1 as version 2, with two, way, one\n" in out
    assert "Sealed alone version 3 as version 4, with alone\n" in out
    for network, version in (("two", 2), ("alone", 4)):
        told = identity.verify_sealed(root / network / str(version), network, version, Trust(public))
        assert not told.variants and told.adopted_from == version - 1
    assert files(bundle.of(root, "two", 2).models["one"]) == {"config.pbtxt": PYTHON, "1/model.py": "one"}
    again = adopt(workspace)
    assert again[0] == 0 and "alone version 4 serves, and is sealed\n" in again[1] and "Sealed" not in again[1]
    for command in (("show", "alone"), ("verify", "alone", "4"), ("verify", "two", "2")):
        done = workspace.run("export", *command, "--repository", str(root))
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_signed_by_another_key_or_changed_since_is_not_signed_again(
    workspace: Workspace, root: Path, signing_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, public = key_pair(workspace.root, "theirs", ec.generate_private_key(ec.SECP256R1()))
    ours, _ = key_pair(workspace.root, "ours", ec.generate_private_key(ec.SECP256R1()))
    signing.sign(root / "net" / "2", Signer(theirs))
    monkeypatch.setenv("SIGNING_KEY", str(ours))
    code, _, err = adopt(workspace, "net")
    assert code == 1 and "it was signed with another key" in err and repository.versions(root / "net") == [1, 2]
    monkeypatch.setenv("VERIFY_KEY", str(public))
    assert adopt(workspace, "net")[0] == 0


def test_another_version_in_its_place_is_not_sealed(workspace: Workspace, root: Path) -> None:
    (root / "net" / "1").rename(root / "net" / "7")
    code, _, err = adopt(workspace, "net")
    assert code == 1 and "net/7 is not net version 7\nNote: it was published as net version 1" in err
