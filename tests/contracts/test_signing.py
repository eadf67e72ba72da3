"""A signature says who released a version, and names what was changed since. Real keys and certificates."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from contracts import signing
from contracts.errors import SignatureError
from contracts.signing import Signer, Trust
from tests.contracts.signers import (
    PEM,
    PRIVATE,
    below,
    chain_of_trust,
    flip_a_byte,
    key_pair,
    respelled,
    write_version,
)

pytestmark = pytest.mark.usefixtures("signing_here")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A version that is verified with the public key beside it, to be copied before it is changed.

    By model_signing's own processes, as nothing here stands in for them.
    """
    folder = tmp_path_factory.mktemp("signed")
    private, public = key_pair(folder, "key", ec.generate_private_key(ec.SECP256R1()))
    version = write_version(folder / "1")
    signing.sign(version, Signer(private))
    signing.verify(version, Trust(public))
    return version, public


def rewrite_the_manifest(version: Path) -> None:
    (version / "manifest.json").write_text('{"accuracy": 1}')


def add_a_file(version: Path) -> None:
    (version / "configs").mkdir()
    (version / "configs" / "gpu.pbtxt").touch()


def add_a_file_that_git_would_hide(version: Path) -> None:
    (version / ".gitignore").touch()


def remove_a_file(version: Path) -> None:
    (version / "model.onnx").unlink()


def rename_a_file(version: Path) -> None:
    (version / "model.onnx").rename(version / "other.onnx")


def rewrite_the_signed_payload(version: Path) -> None:
    bundle = json.loads((version / "model.sig").read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"model.onnx", b"other.onnx")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (version / "model.sig").write_text(json.dumps(bundle))


@pytest.mark.parametrize(
    ("tamper", "note"),
    [
        (flip_a_byte, "is not what was signed\nNote: changed: model.onnx"),
        (rewrite_the_manifest, "is not what was signed\nNote: changed: manifest.json"),
        (add_a_file, "is not what was signed\nNote: not signed: configs/gpu.pbtxt"),
        (add_a_file_that_git_would_hide, "is not what was signed\nNote: not signed: .gitignore"),
        (remove_a_file, "is not what was signed\nNote: missing: model.onnx"),
        (rename_a_file, "is not what was signed\nNote: missing: model.onnx; not signed: other.onnx"),
        (rewrite_the_signed_payload, "Note: it was signed with another key, or the signature itself was changed"),
        (lambda version: (version / "model.sig").write_text("{"), "Note: model_signing says: Expecting property"),
        (lambda version: (version / "model.sig").unlink(), "is unsigned: there is no model.sig"),
        (lambda version: (version / "link").symlink_to("model.onnx"), "link is a symbolic link"),
    ],
)
def test_whatever_is_done_to_a_signed_version_is_named(
    signed: tuple[Path, Path], tmp_path: Path, tamper: Callable[[Path], None], note: str
) -> None:
    version, public = Path(shutil.copytree(signed[0], tmp_path / "1")), signed[1]
    tamper(version)
    with pytest.raises(SignatureError) as refused:
        signing.verify(version, Trust(public))
    assert note in str(refused.value)


def test_another_key_is_refused(version: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    _, other = key_pair(tmp_path, "other", ec.generate_private_key(ec.SECP384R1()))
    signing.sign(version, Signer(keys[0]))
    with pytest.raises(SignatureError, match=r"cannot be verified with .*other\.pub\.pem\nNote: it was signed with"):
        signing.verify(version, Trust(other))


def test_a_signature_in_another_spelling_hides_no_change(signed: tuple[Path, Path], tmp_path: Path) -> None:
    version = Path(shutil.copytree(signed[0], tmp_path / "1"))
    respelled(version, "dsseEnvelope")
    flip_a_byte(version)
    with pytest.raises(SignatureError, match="is not what was signed\nNote: which files differ cannot be told"):
        signing.verify(version, Trust(signed[1]))


def test_a_signer_verifies_its_own_signatures_unless_it_has_a_certificate(
    signed: tuple[Path, Path], version: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    signing.sign(version, Signer(keys[0]))
    with signing.own(Signer(keys[0])) as trust:
        signing.verify(version, trust)
        with pytest.raises(SignatureError, match="signed with another key"):
            signing.verify(signed[0], trust)
    signer, _ = chain_of_trust(tmp_path / "ours")
    with pytest.raises(SignatureError, match="Hint: set VERIFY_CHAIN"), signing.own(signer):
        pass


def test_a_key_alone_does_not_satisfy_a_certificate_chain(
    version: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    _, root = chain_of_trust(tmp_path / "ours")
    signing.sign(version, Signer(keys[0]))
    with pytest.raises(SignatureError, match="verify it with the public key"):
        signing.verify(version, below(root))


def test_a_certificate_of_another_key_cannot_sign(version: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signer, _ = chain_of_trust(tmp_path / "ours")
    with pytest.raises(SignatureError, match="does not match"):
        signing.sign(version, Signer(keys[0], signer.certificate, signer.chain))
    assert not (version / "model.sig").exists()


def test_keys_that_cannot_sign_are_refused_with_the_reason(
    version: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    wrong, _ = key_pair(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    locked = tmp_path / "locked.pem"
    password = serialization.BestAvailableEncryption(b"password")
    locked.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PRIVATE, password))
    for path, reason in {
        tmp_path / "none.pem": "there is no key or certificate",
        public: "the private key is not one in PEM format",
        version / "model.onnx": "a file is not the PEM file it should be",
        wrong: "not an EC key on P-256",
        locked: "has a password",
    }.items():
        with pytest.raises(SignatureError, match=reason):
            signing.sign(version, Signer(path))
    signing.sign(version, Signer(private))
    with pytest.raises(SignatureError, match="the public key is not one in PEM format"):
        signing.verify(version, Trust(private))


def test_the_environment_names_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SIGNING_KEY",
        "SIGNING_CERTIFICATE",
        "SIGNING_CHAIN",
        "VERIFY_KEY",
        "VERIFY_CHAIN",
        "VERIFY_IDENTITY",
    ):
        monkeypatch.delenv(name, raising=False)
    assert signing.signer_from_environment() is None
    assert signing.trust_from_environment() is None
    monkeypatch.setenv("SIGNING_CERTIFICATE", "c.pem")
    with pytest.raises(SignatureError, match="set SIGNING_KEY"):
        signing.signer_from_environment()
    monkeypatch.setenv("SIGNING_KEY", "k.pem")
    monkeypatch.setenv("SIGNING_CHAIN", "a.pem:b.pem")
    assert signing.signer_from_environment() == Signer(Path("k.pem"), Path("c.pem"), (Path("a.pem"), Path("b.pem")))
    monkeypatch.setenv("VERIFY_CHAIN", "root.pem")
    with pytest.raises(SignatureError, match="set VERIFY_IDENTITY"):
        signing.trust_from_environment()
    monkeypatch.setenv("VERIFY_IDENTITY", "release@example.org")
    assert signing.trust_from_environment() == Trust(chain=(Path("root.pem"),), identity="release@example.org")
    monkeypatch.setenv("VERIFY_KEY", "k.pem")
    with pytest.raises(SignatureError, match="one of the two"):
        signing.trust_from_environment()
