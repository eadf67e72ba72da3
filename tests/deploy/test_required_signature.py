"""`deploy up --require-signature` serves what was signed, and starts nothing otherwise."""

import dataclasses
import os
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from contracts import bundle, manifest, signing
from contracts.manifest import Manifest, Source
from contracts.signing import Signer, Trust
from deploy.triton import state
from tests.conftest import FAMILY, MODEL, Workspace
from tests.small_releases import NETWORK, ensemble, written

pytestmark = pytest.mark.usefixtures("signing_here")

# What is wrong with these ports is said right after the signatures were found good.
SAME_PORTS = ("--http-port", "9000", "--grpc-port", "9000")
SIGNATURES_ARE_GOOD = "error: HTTP, gRPC and metrics need a port each"


def up(workspace: Workspace, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    return workspace.run_here("deploy", "up", "--repository", workspace.repository, *SAME_PORTS, *options)


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    """Of the key pair beside it, private.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private, public = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "private.pem").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    path = tmp_path / "public.pem"
    path.write_bytes(key.public_key().public_bytes(pem, public))
    return path


@pytest.fixture
def version(workspace: Workspace, public_key: Path) -> Path:
    """A published version, signed. Its graph is none; nothing here gets as far as loading it."""
    directory = workspace.model / "1"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"weights")
    publish(directory, bundle.write(workspace.repository, MODEL, directory))
    signing.sign(directory, Signer(public_key.with_name("private.pem")))
    return directory


def publish(directory: Path, models: tuple[str, ...]) -> None:
    release = Manifest(
        family=FAMILY,
        model=MODEL,
        version=1,
        created_at="2026-01-01T00:00:00+00:00",
        command=f"python -m export {FAMILY}",
        source=Source("best.ckpt", "00", "11", None, None, None),
        tools={},
        calibration_samples=0,
        test_samples=0,
        reference_score=None,
        gates=(),
        variants=(),
        trials=(),
        sensitivity=(),
        choices=(),
        files=manifest.files_of(directory),
        models=models,
    )
    manifest.write(release, directory)


def test_a_signed_version_may_be_served_with_the_models_that_are_sealed_in_it(
    workspace: Workspace, version: Path, public_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SIGNATURES_ARE_GOOD in up(workspace, "--require-signature", "--verify-key", public_key).stderr
    monkeypatch.setenv("VERIFY_KEY", str(public_key))
    assert SIGNATURES_ARE_GOOD in up(workspace, "--require-signature").stderr


def test_a_version_changed_together_with_its_manifest_is_refused(
    workspace: Workspace, version: Path, public_key: Path
) -> None:
    (version / "model.onnx").write_bytes(b"weighty")
    publish(version, manifest.read(version).models)
    assert SIGNATURES_ARE_GOOD in up(workspace).stderr
    done = up(workspace, "--require-signature", "--verify-key", public_key)
    assert done.returncode == 1
    assert "is not what was signed\nNote: changed: manifest.json; changed: model.onnx\n" in done.stderr


@pytest.mark.parametrize("removed", [("model.sig",), ("model.sig", "manifest.json")])
def test_an_unsigned_version_is_refused_with_or_without_its_manifest(
    workspace: Workspace, version: Path, public_key: Path, removed: tuple[str, ...]
) -> None:
    for name in removed:
        (version / name).unlink()
    done = up(workspace, "--require-signature", "--verify-key", public_key)
    assert done.returncode == 1
    assert f"{MODEL}/1 is unsigned" in done.stderr
    assert "python -m export" in done.stderr


def test_options_that_do_not_add_up_are_refused(
    workspace: Workspace, public_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VERIFY_KEY", raising=False)
    monkeypatch.delenv("VERIFY_CHAIN", raising=False)
    assert "--verify-key FILE" in up(workspace, "--require-signature").stderr
    assert "do nothing without --require-signature" in up(workspace, "--verify-key", public_key).stderr
    both = up(workspace, "--require-signature", "--verify-key", public_key, "--verify-chain", public_key)
    assert "not allowed with argument" in both.stderr


def test_a_version_that_is_signed_and_takes_its_steps_from_the_repository_is_refused(
    workspace: Workspace, version: Path, public_key: Path
) -> None:
    shutil.rmtree(version / bundle.FOLDER)
    publish(version, ())
    signing.sign(version, Signer(public_key.with_name("private.pem")))
    done = up(workspace, "--require-signature", "--verify-key", public_key)
    assert done.returncode == 1
    assert f"{MODEL}/1 is unsealed: no signature covers the configurations, ensembles and steps around" in done.stderr


def test_a_version_under_another_number_is_refused(workspace: Workspace, version: Path, public_key: Path) -> None:
    version.rename(version.with_name("2"))
    done = up(workspace, "--require-signature", "--verify-key", public_key)
    assert done.returncode == 1
    assert f"{MODEL}/2 is not {MODEL} version 2\nNote: it was published as {MODEL} version 1" in done.stderr


def test_two_graphs_that_somebody_put_there_may_be_served_once_they_are_adopted(
    tmp_path: Path, public_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one has a release then, and the other lies in its bundle."""
    workspace = Workspace(tmp_path)
    graphs = {
        f"{name}/{file}": NETWORK.replace("net", name)
        for name in ("a", "b")
        for file in ("config.pbtxt", "1/model.onnx")
    }
    written(workspace.repository, {**graphs, "way/config.pbtxt": ensemble("a", "b"), "way/1/README": ""})
    assert "a/1 is unsigned" in up(workspace, "--require-signature", "--verify-key", public_key).stderr
    monkeypatch.setenv("SIGNING_KEY", str(public_key.with_name("private.pem")))
    workspace.must("export", "adopt", "--no-serve", "--repository", workspace.repository)
    assert SIGNATURES_ARE_GOOD in up(workspace, "--require-signature", "--verify-key", public_key).stderr


@pytest.mark.parametrize(
    "trust",
    [
        None,
        Trust(Path("/verify.pem")),
        Trust(chain=(Path("/root.pem"), Path("/between.pem")), identity="https://example.org/ci"),
        Trust(chain=(Path("/root.pem"),), identity="release@example.org", accept_expired_after=date(2026, 1, 1)),
    ],
)
def test_a_reload_asks_for_what_the_server_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: Trust | None
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    mine = state.Process.of(os.getpid())
    server = state.Running(mine, mine, "ready", "127.0.0.1", 1, 2, 3, "models", "served", None, "", 1)
    state.record(dataclasses.replace(server, **state.trusting(trust)))
    found = state.recorded()
    assert found is not None and found.trust == trust
