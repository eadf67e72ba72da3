"""A signature says who released a version, and names what was changed since. Real keys and certificates."""

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import crypto

from contracts import signing
from contracts.errors import SignatureError
from contracts.signing import Signer, Trust

pytestmark = pytest.mark.usefixtures("signing_here")

PEM = serialization.Encoding.PEM
PRIVATE, PUBLIC = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo


def key_pair(directory: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[Path, Path]:
    """Files with the private and the public key."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(PEM, PRIVATE, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(PEM, PUBLIC))
    return private, public


UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
CODE, CLIENTS = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH
ANYTHING = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
NAMES = (x509.RFC822Name("release@example.org"), x509.UniformResourceIdentifier("https://example.org/ci"))


def below(*chain: Path, since: date | None = None) -> Trust:
    return Trust(chain=chain, identity="release@example.org", accept_expired_after=since)


def usage(*, signs: bool) -> x509.KeyUsage:
    others = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only"),
        False,
    )
    return x509.KeyUsage(digital_signature=signs, key_encipherment=not signs, decipher_only=False, **others)


@dataclass(frozen=True)
class Leaf:
    """What a signer's certificate says, by default what it should."""

    extended: ObjectIdentifier | None = CODE
    signs: bool | None = True  # by its key usage; None: it has none
    begins: datetime = YESTERDAY
    ends: datetime = TOMORROW
    names: tuple[x509.GeneralName, ...] = NAMES
    is_authority: bool = False
    hashed: str = "sha256"
    more: tuple[x509.ExtensionType, ...] = ()  # critical


@dataclass(frozen=True)
class Above:
    """What the certificate of an authority says, by default what it should."""

    is_authority: bool = True
    path_length: int | None = None
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None
    hashed: str = "sha256"
    ends: datetime = TOMORROW
    more: tuple[x509.ExtensionType, ...] = ()


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    issuer: str,
    issuers: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    says: Leaf | Above,
) -> bytes:
    """A certificate authority's, or one for signing."""
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]) for common in (name, issuer))
    builder = x509.CertificateBuilder(by, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(says.begins if isinstance(says, Leaf) else datetime(2010, 1, 1, tzinfo=UTC))
    length = says.path_length if isinstance(says, Above) else None
    builder = builder.not_valid_after(says.ends)
    builder = builder.add_extension(x509.BasicConstraints(says.is_authority, length), critical=True)
    for extension in says.more:
        builder = builder.add_extension(extension, critical=True)
    if isinstance(says, Leaf):
        if says.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(says.names), critical=False)
        if says.extended is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([says.extended]), critical=False)
        if says.signs is not None:
            builder = builder.add_extension(usage(signs=says.signs), critical=True)
    made = crypto.X509.from_cryptography(builder.sign(issuers, hashes.SHA256()))
    made.sign(crypto.PKey.from_cryptography_key(issuers), says.hashed)  # cryptography signs nothing with SHA-1
    return crypto.dump_certificate(crypto.FILETYPE_PEM, made)


def chain_of_trust(
    directory: Path, leaf: Leaf = Leaf(), above: tuple[Above, ...] = (Above(),), root: Above = Above()
) -> tuple[Signer, Path]:
    """A signer whose certificate intermediate ones vouch for, and the root certificate above them."""
    directory.mkdir()
    key = root.key or ec.generate_private_key(ec.SECP256R1())
    issuer, issuers, chain = "root", key, list[Path]()
    (directory / "root.pem").write_bytes(certificate("root", key, "root", key, root))
    for number, says in enumerate(above):
        name, key = f"between{number}", says.key or ec.generate_private_key(ec.SECP256R1())
        chain.insert(0, directory / f"{name}.pem")
        chain[0].write_bytes(certificate(name, key, issuer, issuers, says))
        issuer, issuers = name, key
    signer = ec.generate_private_key(ec.SECP256R1())
    (directory / "signer.pem").write_bytes(certificate("signer", signer, issuer, issuers, leaf))
    private, _ = key_pair(directory, "key", signer)
    return Signer(private, directory / "signer.pem", tuple(chain)), directory / "root.pem"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """An unsigned version."""
    return write_version(tmp_path / "1")


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


def write_version(directory: Path) -> Path:
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"weights")
    (directory / "manifest.json").write_text("{}")
    return directory


def flip_a_byte(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"weighty")


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


def test_a_certificate_is_trusted_for_its_root_alone(version: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signer, root = chain_of_trust(tmp_path / "ours")
    _, other_root = chain_of_trust(tmp_path / "theirs")
    signing.sign(version, signer)
    signing.verify(version, below(root))
    with pytest.raises(SignatureError, match="does not lead to a root among these"):
        signing.verify(version, below(other_root))
    with pytest.raises(SignatureError, match="verify it with the certificate chain"):
        signing.verify(version, Trust(keys[1]))
    flip_a_byte(version)
    with pytest.raises(SignatureError, match=r"changed: model\.onnx"):
        signing.verify(version, below(root))


def test_a_certificate_needs_no_chain_of_its_own(version: Path, tmp_path: Path) -> None:
    signer, root = chain_of_trust(tmp_path / "ours")
    signing.sign(version, Signer(signer.private_key, signer.certificate))
    signing.verify(version, below(root, *signer.chain))


@pytest.mark.parametrize(
    ("leaf", "told"),
    [
        (Leaf(extended=CLIENTS), "may not sign releases\nNote: its extended key usage has no codeSigning"),
        (Leaf(extended=None), "may not sign releases\nNote: its extended key usage has no codeSigning"),
        (Leaf(signs=None), "may not sign releases\nNote: its key usage has no digitalSignature"),
        (Leaf(signs=False), "may not sign releases\nNote: its key usage has no digitalSignature"),
        (Leaf(begins=YESTERDAY - timedelta(days=9), ends=YESTERDAY), "is not valid\nNote: certificate has expired"),
        (Leaf(begins=TOMORROW, ends=TOMORROW + timedelta(days=1)), "is not valid\nNote: certificate is not yet valid"),
        (Leaf(extended=ANYTHING), "may not sign releases\nNote: its extended key usage has no codeSigning"),
        (Leaf(extended=ExtendedKeyUsageOID.TIME_STAMPING), "may not sign releases\nNote: its extended key usage"),
        (Leaf(is_authority=True), "may not sign releases\nNote: it is an authority's"),
        (Leaf(names=()), "may not sign releases\nNote: its subjectAltName is none, and not release@example.org"),
        (Leaf(hashed="sha1"), "is not valid\nNote: CN=signer is signed with sha1"),
    ],
)
def test_only_a_certificate_for_signing_code_that_is_valid_today_signs(
    version: Path, tmp_path: Path, leaf: Leaf, told: str
) -> None:
    signer, root = chain_of_trust(tmp_path / "ours", leaf)
    signing.sign(version, signer)
    with pytest.raises(SignatureError) as refused:
        signing.verify(version, below(root))
    assert f"the certificate of CN=signer {told}" in str(refused.value)


@pytest.mark.parametrize(
    ("above", "root", "told"),
    [
        ((Above(is_authority=False),), Above(), "invalid CA certificate"),
        ((Above(path_length=0), Above()), Above(), "path length constraint exceeded"),
        ((Above(),), Above(path_length=0), "path length constraint exceeded"),
        ((Above(ends=YESTERDAY),), Above(), "certificate has expired"),
        ((Above(),), Above(ends=YESTERDAY), "certificate has expired"),
        ((Above(more=(usage(signs=True),)),), Above(), "invalid CA certificate|not include certificate signing"),
        ((Above(more=(x509.ExtendedKeyUsage([CLIENTS]),)),), Above(), "CN=between0 issues no certificates for code"),
        ((Above(),), Above(more=(x509.ExtendedKeyUsage([CLIENTS]),)), "CN=root issues no certificates for code"),
        ((Above(more=(x509.NameConstraints([x509.RFC822Name("example.com")], None),)),), Above(), "permitted subtree"),
        ((Above(more=(x509.NameConstraints(None, [x509.RFC822Name("example.org")]),)),), Above(), "excluded subtree"),
        ((Above(more=(UNKNOWN,)),), Above(), "unhandled critical extension"),
        ((Above(hashed="sha1"),), Above(), "CN=between0 is signed with sha1"),
        ((Above(key=rsa.generate_private_key(65537, 1024)),), Above(), "the key of CN=between0 is too short"),
        ((Above(),), Above(key=ec.generate_private_key(ec.SECP192R1())), "the key of CN=root is too short"),
    ],
)
def test_every_certificate_above_is_one_that_may_vouch_for_code(
    version: Path, tmp_path: Path, above: tuple[Above, ...], root: Above, told: str
) -> None:
    signer, trusted = chain_of_trust(tmp_path / "ours", above=above, root=root)
    signing.sign(version, signer)
    with pytest.raises(SignatureError, match=told):
        signing.verify(version, below(trusted))


@pytest.mark.parametrize(
    "above",
    [
        (),
        (Above(path_length=1), Above(path_length=0)),
        (Above(more=(x509.ExtendedKeyUsage([CODE]),), key=rsa.generate_private_key(65537, 2048)),),
        (Above(more=(x509.NameConstraints([x509.RFC822Name("example.org")], None),)),),
    ],
)
def test_a_certificate_below_authorities_that_may_vouch_for_it_signs(
    version: Path, tmp_path: Path, above: tuple[Above, ...]
) -> None:
    signer, trusted = chain_of_trust(tmp_path / "ours", above=above, root=Above(hashed="sha1"))
    signing.sign(version, signer)
    signing.verify(version, below(trusted))


def test_a_chain_says_whose_signature_is_asked_for() -> None:
    with pytest.raises(SignatureError, match="not whose signature is asked for\nNote: whoever gets one for code"):
        Trust(chain=(Path("root.pem"),))


@pytest.mark.parametrize(
    "name",
    [x509.DNSName("release@example.org"), x509.UniformResourceIdentifier("release@example.org"), x509.DNSName("*")],
)
def test_a_name_of_another_kind_is_another_name(version: Path, tmp_path: Path, name: x509.GeneralName) -> None:
    signer, root = chain_of_trust(tmp_path / "ours", Leaf(names=(name,)))
    signing.sign(version, signer)
    with pytest.raises(SignatureError, match="its subjectAltName is"):
        signing.verify(version, below(root))


def test_a_host_name_may_be_a_signers_identity(version: Path, tmp_path: Path) -> None:
    signer, root = chain_of_trust(tmp_path / "ours", Leaf(names=(x509.DNSName("ci.example.org"),)))
    signing.sign(version, signer)
    signing.verify(version, Trust(chain=(root,), identity="ci.example.org"))


def respelled(version: Path, *keys: str) -> None:
    """Write names in a signature in the other spelling that model_signing takes."""
    text = (version / "model.sig").read_text()
    for key in keys:
        text = text.replace(f'"{key}"', f'"{re.sub("([A-Z])", lambda upper: "_" + upper[1].lower(), key)}"')
    (version / "model.sig").write_text(text)


@pytest.mark.parametrize("keys", [("x509CertificateChain",), ("rawBytes",)])
def test_a_signature_whose_certificate_cannot_be_found_is_refused(
    version: Path, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    signer, root = chain_of_trust(tmp_path / "ours")
    signing.sign(version, signer)
    respelled(version, *keys)
    with pytest.raises(SignatureError, match="has no certificate that can be read\nNote: KeyError"):
        signing.verify(version, below(root))


def test_a_signature_in_another_spelling_hides_no_change(signed: tuple[Path, Path], tmp_path: Path) -> None:
    version = Path(shutil.copytree(signed[0], tmp_path / "1"))
    respelled(version, "dsseEnvelope")
    flip_a_byte(version)
    with pytest.raises(SignatureError, match="is not what was signed\nNote: which files differ cannot be told"):
        signing.verify(version, Trust(signed[1]))


def test_a_certificate_has_to_be_of_whom_the_user_says(version: Path, tmp_path: Path) -> None:
    signer, root = chain_of_trust(tmp_path / "ours")
    signing.sign(version, signer)
    for name in NAMES:
        signing.verify(version, Trust(chain=(root,), identity=name.value))
    for other in ("example.org", "RELEASE@example.org", "https://example.org/", "*", ""):
        with pytest.raises(
            SignatureError, match=r"subjectAltName is release@example\.org, https://example\.org/ci, and"
        ):
            signing.verify(version, Trust(chain=(root,), identity=other))


@pytest.mark.parametrize(
    ("made", "since", "told"),
    [
        ("2020-03-01T00:00:00+00:00", date(2020, 2, 1), None),
        ("2020-01-01T00:00:00+00:00", date(2020, 2, 1), "has expired"),  # from before what is accepted
        ("2020-08-01T00:00:00+00:00", date(2020, 2, 1), "on 2020-08-01, when the release says that it was made: "),
        ("2018-08-01T00:00:00+00:00", date(2018, 2, 1), "not yet valid"),
        ("2999-01-01T00:00:00+00:00", date(2020, 2, 1), "has expired"),
        ("yesterday", date(2020, 2, 1), "has expired"),
        ("2020-03-01T00:00:00+00:00", None, "Hint: an archive's: --accept-expired-after DATE"),
    ],
)
def test_of_an_archive_a_certificate_may_have_expired_since_it_signed(
    version: Path, tmp_path: Path, made: str, since: date | None, told: str | None
) -> None:
    began, ended = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 7, 1, tzinfo=UTC)
    signer, root = chain_of_trust(tmp_path / "ours", Leaf(begins=began, ends=ended))
    (version / "manifest.json").write_text(json.dumps({"created_at": made}))
    signing.sign(version, signer)
    trust = below(root, since=since)
    if told is None:
        signing.verify(version, trust)
        return
    with pytest.raises(SignatureError) as refused:
        signing.verify(version, trust)
    assert told in str(refused.value)


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
