"""What is published can be listed, shown, verified and registered from the command line."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from contracts import manifest
from tests.conftest import FAMILY, MODEL, Workspace
from tests.contracts.signers import key_pair


def on(workspace: Workspace, *arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of `python -m export ARGUMENTS…` for its repository."""
    done = workspace.run("export", *arguments, "--repository", workspace.repository)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def faults(workspace: Workspace, *arguments: str | Path) -> dict[str, str]:
    """What `verify --json` says of each version."""
    code, out, _ = on(workspace, "verify", *arguments, "--json")
    verdicts = json.loads(out)
    assert code == (1 if any(v != "as published" for v in verdicts.values()) else 0)
    return {Path(directory).name: verdict for directory, verdict in verdicts.items()}


def second_version(workspace: Workspace) -> Path:
    """The same release again, as version 2."""
    directory = workspace.model / "2"
    shutil.copytree(workspace.model / "1", directory)
    manifest.write(dataclasses.replace(manifest.read(directory), version=2), directory)
    return directory


def test_list_has_a_line_for_every_version(released: Workspace) -> None:
    second_version(released)
    code, out, _ = on(released, "list")
    release = manifest.read(released.model / "1")
    rows = [line for line in out.splitlines() if MODEL in line]
    assert code == 0 and len(rows) == 2
    assert release.source.sha256[:12] in out and f"{release.choices[0].precision} model.onnx" in out
    assert all("no" in row for row in rows), "not signed"
    assert [found["version"] for found in json.loads(on(released, "list", "--json")[1])] == [1, 2]


def test_an_empty_repository_lists_nothing_and_says_how_to_publish(workspace: Workspace) -> None:
    code, out, _ = on(workspace, "list")
    assert code == 0 and "Nothing is published in" in out and "Next: python -m export FAMILY" in out
    assert on(workspace, "list", "--json")[:2] == (0, "[]\n")


def test_show_has_every_gate_of_the_newest_version_or_the_named_one(released: Workspace) -> None:
    second_version(released)
    release = manifest.read(released.model / "1")
    code, out, _ = on(released, "show", MODEL, "1")
    assert code == 0
    gates = [*release.gates, *(gate for variant in release.variants for gate in variant.gates)]
    gates += [timing.worth_it for variant in release.variants for timing in variant.timings.values() if timing.worth_it]
    assert out.count("✓") == sum(gate.passed for gate in gates)
    assert out.count("✗") == sum(not gate.passed for gate in gates)
    assert release.source.sha256 in out and release.command in out
    assert json.loads(on(released, "show", MODEL, "--json")[1])["version"] == 2
    assert json.loads(on(released, "show", MODEL, "1", "--json")[1])["version"] == 1


@pytest.mark.parametrize("command", ["show", "verify", "register"])
def test_what_is_not_published_is_named_with_what_is(released: Workspace, command: str) -> None:
    code, out, err = on(released, command, MODEL, "7")
    assert (code, out) == (1, "")
    assert f"error: {MODEL} has no version 7 in" in err and "Note: versions: 1\n" in err
    code, out, err = on(released, command, "nothing")
    assert (code, out) == (1, "")
    assert "nothing" in err.splitlines()[0]


def test_verify_of_an_empty_repository_is_an_error(workspace: Workspace) -> None:
    code, out, err = on(workspace, "verify")
    assert (code, out) == (1, "") and err.startswith("error: nothing to verify in ")


def test_verify_passes_what_was_published(released: Workspace) -> None:
    assert faults(released) == {"1": "as published"}
    code, out, _ = on(released, "verify")
    assert code == 0 and out.startswith("✓ ") and out.endswith("/1: as published (digests)\n")


def flip_a_byte(version: Path) -> None:
    content = bytearray((version / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (version / "model.onnx").write_bytes(content)


def remove_the_report(version: Path) -> None:
    (version / "report.html").unlink()


def add_a_file(version: Path) -> None:
    (version / "model.plan").touch()


def remove_the_manifest(version: Path) -> None:
    (version / "manifest.json").unlink()


AGAIN = f"Hint: export it again, or serve the version before: python -m deploy rollback {MODEL}"


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (flip_a_byte, "is not what was published\nNote: changed: model.onnx\n" + AGAIN),
        (remove_the_report, "is not what was published\nNote: missing: report.html\n" + AGAIN),
        (add_a_file, "is not what was published\nNote: not in the manifest: model.plan\n" + AGAIN),
        (remove_the_manifest, "manifest.json does not exist\nHint: publish a version: python -m export FAMILY"),
    ],
)
def test_verify_names_exactly_what_was_changed_in_exactly_that_version(
    released: Workspace, tamper: Callable[[Path], None], told: str
) -> None:
    tamper(second_version(released))
    found = faults(released)
    assert found["1"] == "as published" and found["2"].endswith(told)
    assert faults(released, MODEL, "1") == {"1": "as published"}


def test_verify_notices_the_manifest_of_another_version(released: Workspace) -> None:
    shutil.copyfile(second_version(released) / "manifest.json", released.model / "1" / "manifest.json")
    found = faults(released, MODEL)
    assert found["2"] == "as published"
    assert f"Note: it was published as {MODEL} version 2, and somebody has put it there" in found["1"]


def test_with_a_signing_key_a_version_is_published_signed_and_verified_with_its_pair_alone(
    shared: Workspace, release: Path, checkpoint: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the session's workspace, whose cache has every step."""
    private, public = key_pair(workspace.root, "ours", ec.generate_private_key(ec.SECP256R1()))
    _, other = key_pair(workspace.root, "theirs", ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("SIGNING_KEY", str(private))
    shared.must(
        "export", FAMILY, "--checkpoint", checkpoint, "--repository", workspace.repository,
        "--precision", "fp32", "--no-register",
    )  # fmt: skip
    assert (workspace.model / "1" / "model.sig").is_file()
    assert faults(workspace, "--verify-key", public) == {"1": "as published"}
    assert "cannot be verified with" in faults(workspace, "--verify-key", other)["1"]
    monkeypatch.setenv("VERIFY_KEY", str(public))
    code, out, _ = on(workspace, "verify")
    assert code == 0 and out.endswith("as published (digests and signature)\n")


def test_an_unsigned_version_is_a_fault_only_where_signatures_are_asked_for(released: Workspace) -> None:
    _, public = key_pair(released.root, "key", ec.generate_private_key(ec.SECP256R1()))
    assert "is unsigned: there is no model.sig" in faults(released, "--verify-key", public)["1"]


def test_register_puts_a_version_into_the_workspaces_own_store(released: Workspace) -> None:
    code, out, _ = on(released, "register", MODEL)
    assert (code, out) == (0, f"Registered as models:/{FAMILY}/1, alias challenger\n")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{released.root / 'artifacts' / 'mlflow.db'}")
    version = client.get_model_version_by_alias(FAMILY, "challenger")
    assert version.tags["manifest_sha256"] == manifest.sha256(released.model / "1" / "manifest.json")


def test_a_changed_version_is_not_registered(released: Workspace) -> None:
    flip_a_byte(released.model / "1")
    code, out, err = on(released, "register", MODEL)
    assert (code, out) == (1, "") and "changed: model.onnx" in err
