"""A certificate says whose signature it is: what it and those above it may vouch for. Real ones."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from contracts import signing
from contracts.errors import SignatureError
from contracts.signing import Signer, Trust
from tests.contracts.signers import (
    ANYTHING,
    CLIENTS,
    CODE,
    NAMES,
    TOMORROW,
    UNKNOWN,
    YESTERDAY,
    Above,
    Leaf,
    below,
    chain_of_trust,
    flip_a_byte,
    respelled,
    usage,
)

pytestmark = pytest.mark.usefixtures("signing_here")


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


@pytest.mark.parametrize("keys", [("x509CertificateChain",), ("rawBytes",)])
def test_a_signature_whose_certificate_cannot_be_found_is_refused(
    version: Path, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    signer, root = chain_of_trust(tmp_path / "ours")
    signing.sign(version, signer)
    respelled(version, *keys)
    with pytest.raises(SignatureError, match="has no certificate that can be read\nNote: KeyError"):
        signing.verify(version, below(root))


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
