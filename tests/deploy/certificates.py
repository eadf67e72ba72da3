"""Certificates for tests of TLS: an authority, and what it issues for this machine."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority; its certificate is in the file `certificate`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        own = self._builder(self._name, self._key, signs=True).add_extension(constraint, critical=True)
        self.certificate = self._write(own, f"{name}.pem")

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for `name`, valid for this machine's loopback addresses, and its private key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        signed = self._builder(subject, key).add_extension(x509.SubjectAlternativeName(here), critical=False)
        file = self._folder / f"{name}.key"
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        return self._write(signed, f"{name}.pem"), file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, signs: bool = False
    ) -> x509.CertificateBuilder:
        """Begin a certificate with all that RFC 5280 asks for: Python 3.13 takes no other (VERIFY_X509_STRICT)."""
        now = datetime.datetime.now(datetime.UTC)
        unused = dict.fromkeys(("content_commitment", "data_encipherment", "encipher_only", "decipher_only"), False)
        usage = x509.KeyUsage(
            digital_signature=not signs,
            key_encipherment=False,
            key_agreement=not signs,
            key_cert_sign=signs,
            crl_sign=signs,
            **unused,
        )
        own, issuer = key.public_key(), self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(own)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )

    def _write(self, builder: x509.CertificateBuilder, name: str) -> Path:
        file = self._folder / name
        file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return file
