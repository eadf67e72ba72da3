"""Who may sign releases with a certificate: it is for signing code, valid, and of whom it should be.

model_signing 1.1.1 takes a certificate for TLS clients as a signer's, and sets its clock to the certificate's own first
day, so that one which has expired, or is not yet valid, passes. So all of that is looked at here once more.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import layout
from contracts.errors import SignatureError

if TYPE_CHECKING:  # to import it costs 0.1 s
    from cryptography.x509 import Certificate


_HASHES = ("sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512")
_CURVE_BITS, _RSA_BITS = 256, 2048  # at least


@dataclass(frozen=True)
class Demands:
    """What a signer's certificate has to be.

    Args:
        chain: Files with the root certificate, and those between.
        identity: An e-mail address, a URI or a host name that its subjectAltName has.
        accept_expired_after: One that has expired passes where the release says that it was made after this, and while
            the certificate was valid. It is the signer who says so.
    """

    chain: tuple[Path, ...]
    identity: str
    accept_expired_after: date | None


def check(signature: Path, made: datetime | None, demands: Demands, now: datetime | None = None) -> None:
    """Check the certificate in a signature, whose signature itself has been verified.

    Args:
        signature: model.sig.
        made: When the release says that it was made.
        now: The time; None: of the machine's clock.

    Raises:
        SignatureError: it is not what is asked for.
    """
    now = now or datetime.now(UTC)
    signer, *between = _certificates(signature)
    for wrong in (*_not_for_code(signer), *_not_of(signer, demands.identity)):
        raise SignatureError(f"the certificate of {signer.subject.rfc4514_string()} may not sign releases", note=wrong)
    if not (told := _not_valid(signer, between, demands.chain, now)):
        return
    limit, hint = demands.accept_expired_after, None
    if now > signer.not_valid_after_utc:
        hint = "an archive's: --accept-expired-after DATE takes what was signed since then, as the signer says"
        if limit is not None and made is not None and limit <= made.date() and made <= now:
            if not (told := _not_valid(signer, between, demands.chain, made)):
                return
            told = f"on {made:%Y-%m-%d}, when the release says that it was made: {told}"
    raise SignatureError(
        f"the certificate of {signer.subject.rfc4514_string()} is not valid",
        note=f"{told}; it is for {signer.not_valid_before_utc:%Y-%m-%d} to {signer.not_valid_after_utc:%Y-%m-%d}",
        hint=hint,
    )


def _certificates(signature: Path) -> "list[Certificate]":
    """Read the certificates in a signature, the signer's first.

    Raises:
        SignatureError: there is none, or one has a form that is none. model_signing takes other spellings of the names
            in that file, too, and nobody vouches for those.
    """
    from cryptography import x509

    try:
        material = json.loads(signature.read_text())["verificationMaterial"]["x509CertificateChain"]["certificates"]
        found = [x509.load_der_x509_certificate(base64.b64decode(each["rawBytes"])) for each in material]
        for certificate in found:
            certificate.extensions  # noqa: B018  # they are not read before they are asked for
    except (ValueError, LookupError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise SignatureError(
            f"{layout.shown(signature)} has no certificate that can be read", note=f"{type(error).__name__}: {error}"
        ) from error
    return found


def _not_for_code(certificate: "Certificate") -> Iterator[str]:
    from cryptography import x509

    with_usage = {type(extension.value): extension.value for extension in certificate.extensions}
    usage, extended = with_usage.get(x509.KeyUsage), with_usage.get(x509.ExtendedKeyUsage)
    if not (isinstance(usage, x509.KeyUsage) and usage.digital_signature):
        yield "its key usage has no digitalSignature"
    if not (isinstance(extended, x509.ExtendedKeyUsage) and x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in extended):
        yield "its extended key usage has no codeSigning"
    constraints = with_usage.get(x509.BasicConstraints)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        yield "it is an authority's, which issues certificates and signs nothing else"


def _not_of(certificate: "Certificate", identity: str) -> Iterator[str]:
    from cryptography import x509

    try:
        names = [*certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
    except x509.ExtensionNotFound:
        names = []
    # A host name that reads like somebody's e-mail address is not that.
    kind = x509.UniformResourceIdentifier if ":" in identity else x509.RFC822Name if "@" in identity else x509.DNSName
    if identity not in [name.value for name in names if isinstance(name, kind)]:
        shown = ", ".join(str(name.value) for name in names) or "none"
        yield f"its subjectAltName is {shown}, and not {identity}"


def _not_valid(
    signer: "Certificate", between: "Sequence[Certificate]", chain: Sequence[Path], at: datetime
) -> str | None:
    """Say why a certificate does not lead to a root at that time; None where it does."""
    from cryptography import x509
    from OpenSSL import crypto

    store = crypto.X509Store()
    for certificate in x509.load_pem_x509_certificates(b"".join(path.read_bytes() for path in chain)):
        store.add_cert(crypto.X509.from_cryptography(certificate))
    store.set_time(at)
    others = [crypto.X509.from_cryptography(certificate) for certificate in between]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(signer), others)
    try:
        verified = [certificate.to_cryptography() for certificate in context.get_verified_chain()]
    except crypto.X509StoreContextError as error:
        return str(error)
    return next(iter([*_weak(verified), *_for_something_else(verified[1:])]), None)


def _weak(chain: "Sequence[Certificate]") -> Iterator[str]:
    """Yield what can be forged of a chain, the root at its end; OpenSSL takes SHA-1 and short keys there."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

    for certificate in chain:
        key, hashed = certificate.public_key(), certificate.signature_hash_algorithm
        is_short = isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < _RSA_BITS
        if is_short or (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _CURVE_BITS):
            yield f"the key of {certificate.subject.rfc4514_string()} is too short"
        # A root's own signature says nothing; of some keys, as Ed25519, there is no choice.
        if certificate is not chain[-1] and hashed is not None and hashed.name not in _HASHES:
            yield f"{certificate.subject.rfc4514_string()} is signed with {hashed.name}"


def _for_something_else(authorities: "Sequence[Certificate]") -> Iterator[str]:
    """Yield the authorities that may issue certificates, but none for code: OpenSSL does not look at that."""
    from cryptography import x509

    for_code = {x509.oid.ExtendedKeyUsageOID.CODE_SIGNING, x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    for certificate in authorities:
        usages = [e.value for e in certificate.extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
        if any(not for_code & {*usage} for usage in usages):
            yield f"{certificate.subject.rfc4514_string()} issues no certificates for code"
