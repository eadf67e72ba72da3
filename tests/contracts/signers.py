"""Keys, certificates and a version to sign: what the tests of signatures are made of."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import crypto

from contracts.signing import Signer, Trust

PEM = serialization.Encoding.PEM
PRIVATE, PUBLIC = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
CODE, CLIENTS = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH
ANYTHING = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
NAMES = (x509.RFC822Name("release@example.org"), x509.UniformResourceIdentifier("https://example.org/ci"))


def key_pair(directory: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[Path, Path]:
    """Files with the private and the public key."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(PEM, PRIVATE, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(PEM, PUBLIC))
    return private, public


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


def write_version(directory: Path) -> Path:
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"weights")
    (directory / "manifest.json").write_text("{}")
    return directory


def flip_a_byte(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"weighty")


def respelled(version: Path, *keys: str) -> None:
    """Write names in a signature in the other spelling that model_signing takes."""
    text = (version / "model.sig").read_text()
    for key in keys:
        text = text.replace(f'"{key}"', f'"{re.sub("([A-Z])", lambda upper: "_" + upper[1].lower(), key)}"')
    (version / "model.sig").write_text(text)
