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

from contracts.errors import SignatureError

if TYPE_CHECKING:  # to import it costs 0.1 s
    from cryptography.x509 import Certificate


@dataclass(frozen=True)
class Demands:
    """What a signer's certificate has to be.

    Args:
        chain: Files with the root certificate, and those between.
        identity: An e-mail address, a URI or a host name that its subjectAltName has; None: whoever is below the root.
        accept_expired_after: One that has expired passes where the release says that it was made after this, and while
            the certificate was valid. It is the signer who says so.
    """

    chain: tuple[Path, ...]
    identity: str | None
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
    from cryptography import x509

    now = now or datetime.now(UTC)
    material = json.loads(signature.read_text())["verificationMaterial"]["x509CertificateChain"]["certificates"]
    signer, *between = (x509.load_der_x509_certificate(base64.b64decode(each["rawBytes"])) for each in material)
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


def _not_for_code(certificate: "Certificate") -> Iterator[str]:
    from cryptography import x509

    with_usage = {type(extension.value): extension.value for extension in certificate.extensions}
    usage, extended = with_usage.get(x509.KeyUsage), with_usage.get(x509.ExtendedKeyUsage)
    if not (isinstance(usage, x509.KeyUsage) and usage.digital_signature):
        yield "its key usage has no digitalSignature"
    if not (isinstance(extended, x509.ExtendedKeyUsage) and x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in extended):
        yield "its extended key usage has no codeSigning"


def _not_of(certificate: "Certificate", identity: str | None) -> Iterator[str]:
    if identity is not None and identity not in (names := _names(certificate)):
        yield f"its subjectAltName is {', '.join(names) or 'none'}, and not {identity}"


def _names(certificate: "Certificate") -> list[str]:
    """List the e-mail addresses, URIs and host names that a certificate is of."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
    return [name.value for name in names if isinstance(name, kinds)]


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
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(signer), others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return None
