"""Signatures of published versions: who released the files, and that they are still the same ones.

`model.sig` lies beside the manifest and covers every other file of the version, the manifest included. It is a
signature of the OpenSSF model signing standard, made and checked by the `model_signing` command line; keys and
certificates are PEM files with EC keys (P-256, P-384 or P-521):

  openssl ecparam -genkey -noout -name prime256v1 -out signing.pem     # the private key; not encrypted
  openssl ec -in signing.pem -pubout -out verify.pem                   # the public key, for whoever verifies
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from contracts.errors import SignatureError
from contracts.layout import shown
from contracts.manifest import FILE_NAME, SIGNATURE, sha256
from contracts.trust import certificates

_FAILED = "failed with error: "  # what model_signing's reason comes after
_MISMATCH = "Signature mismatch: "  # its reason where the signature is good and the files are others
# model_signing 1.1.1 often passes on what a library below it said. None of it names the user's mistake.
_MEANINGS = (
    ("^$|Key mismatch", "it was signed with another key, or the signature itself was changed"),
    ("issuer certificate|self.signed|certificate signature", "its certificate does not lead to a root among these"),
    ("has no attribute 'hint'", "it was signed with a certificate: verify it with the certificate chain"),
    ("has no attribute 'certificates'", "it was signed with a key alone: verify it with the public key"),
    ("has no attribute 'curve'|Unsupported key", "the key is not an EC key on P-256, P-384 or P-521"),
    ("private key is encrypted", "the private key has a password: openssl pkey -in KEY -out KEY_WITHOUT_PASSWORD"),
    ("this is a private key", "the private key is not one in PEM format"),
    ("this is a public key", "the public key is not one in PEM format"),
    ("PEM", "a file is not the PEM file it should be"),
)


@dataclass(frozen=True)
class Signer:
    """What a version is signed with: a private key, alone or with its certificate and the chain above that."""

    private_key: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.chain and self.certificate is None:
            raise SignatureError("a certificate chain without the signing certificate", hint="set SIGNING_CERTIFICATE")


@dataclass(frozen=True)
class Trust:
    """What a signature must have been made with: the pair of a public key, or a certificate below a root."""

    public_key: Path | None = None
    chain: tuple[Path, ...] = ()  # with the root certificate
    identity: str | None = None  # e-mail address, URI or host name of the certificate; there is one with a chain
    accept_expired_after: date | None = None  # what was signed since passes though its certificate has expired

    def __post_init__(self) -> None:
        # Without either model_signing would trust every root that a browser does.
        if (self.public_key is None) == (not self.chain):
            raise SignatureError(
                "signatures are verified with a public key or with a certificate chain, one of the two",
                hint="set VERIFY_KEY or VERIFY_CHAIN, and unset the other one",
            )
        if self.chain and self.identity is None:
            raise SignatureError(
                "a certificate chain says who may issue certificates, and not whose signature is asked for",
                note="whoever gets one for code below that root could sign",
                hint="add --verify-identity, or set VERIFY_IDENTITY: an e-mail address, URI or host name of its signer",
            )
        if self.public_key and (self.identity or self.accept_expired_after):
            raise SignatureError(
                "a public key has no identity and does not expire: both are a certificate's",
                hint="set VERIFY_CHAIN in place of VERIFY_KEY, or leave them out",
            )


def signer_from_environment() -> Signer | None:
    """Return what SIGNING_KEY, SIGNING_CERTIFICATE and SIGNING_CHAIN name; None where nothing is configured.

    Raises:
        SignatureError: there is a certificate or a chain without what it belongs to.
    """
    key, certificate, chain = _path("SIGNING_KEY"), _path("SIGNING_CERTIFICATE"), _paths("SIGNING_CHAIN")
    if key is None:
        if certificate or chain:
            raise SignatureError("a signing certificate without its private key", hint="set SIGNING_KEY")
        return None
    return Signer(key, certificate, chain)


def trust_from_environment() -> Trust | None:
    """Return what VERIFY_KEY, or VERIFY_CHAIN with VERIFY_IDENTITY, names; None where nothing is configured.

    Raises:
        SignatureError: both are set, or one of a chain and an identity.
    """
    return trust(None, (), None, None)


def trust(
    public_key: Path | None, chain: tuple[Path, ...], identity: str | None, accept_expired_after: date | None
) -> Trust | None:
    """Return what options of a command ask for, by default what the environment does; None where neither does.

    Raises:
        SignatureError: they do not add up.
    """
    if not (public_key or chain):
        public_key, chain = _path("VERIFY_KEY"), _paths("VERIFY_CHAIN")
    if not public_key:
        identity = identity or os.environ.get("VERIFY_IDENTITY") or None
    if not (public_key or chain or identity or accept_expired_after):
        return None
    return Trust(public_key, chain, identity, accept_expired_after)


@contextmanager
def own(signer: Signer) -> Iterator[Trust]:
    """Yield what the signer's own signatures are verified with: the other half of its key.

    Raises:
        SignatureError: it signs with a certificate, whose root it does not know; or its key is none.
    """
    if signer.certificate is not None:
        raise SignatureError(
            "what was signed with a certificate is verified with its root",
            hint="set VERIFY_CHAIN, and VERIFY_IDENTITY, beside SIGNING_CERTIFICATE",
        )
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(signer.private_key.read_bytes(), None).public_key()
    except (OSError, ValueError, TypeError) as error:
        raise SignatureError(f"cannot sign with {shown(signer.private_key)}", note=_meaning(str(error))) from error
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder, "verify.pem")
        public.write_bytes(key.public_bytes(serialization.Encoding.PEM, kind))
        yield Trust(public)


def sign(directory: Path, signer: Signer) -> None:
    """Write `directory`/model.sig, which covers every other file in there. Symbolic links are refused.

    Raises:
        SignatureError: a key or certificate is missing, of the wrong kind, or not the other's pair.
    """
    files = [("--private_key", signer.private_key)]
    if signer.certificate:
        # model_signing 1.1.1 cannot read an empty chain; the certificate itself adds nothing to it.
        chain = signer.chain or (signer.certificate,)
        files += [("--signing_certificate", signer.certificate), *(("--certificate_chain", path) for path in chain)]
    reason = _model_signing("sign", "certificate" if signer.certificate else "key", directory, files)
    if reason is not None:
        raise SignatureError(f"cannot sign {shown(directory)} with {_named(files)}", note=_meaning(reason))


def verify(directory: Path, trust: Trust) -> None:
    """Compare every file in `directory` with what was signed. Symbolic links are refused.

    Raises:
        SignatureError: it is unsigned, was signed with something else or by somebody who may not, or naming each file
            that is changed, missing or was added since.
    """
    signature = directory / SIGNATURE
    if not signature.is_file():
        raise SignatureError(
            f"{shown(directory)} is unsigned: there is no {SIGNATURE}",
            hint="set SIGNING_KEY and publish it again: python -m export FAMILY",
        )
    files = [("--certificate_chain", path) for path in trust.chain]
    if trust.public_key:
        files = [("--public_key", trust.public_key)]
    reason = _model_signing("verify", "key" if trust.public_key else "certificate", directory, files)
    if reason is None:
        if trust.chain and trust.identity is not None:
            demands = certificates.Demands(trust.chain, trust.identity, trust.accept_expired_after)
            certificates.check(signature, _made(directory), demands)
        return
    if reason.startswith(_MISMATCH):
        raise SignatureError(f"{shown(directory)} is not what was signed", note=_differences(directory))
    raise SignatureError(f"{shown(directory)} cannot be verified with {_named(files)}", note=_meaning(reason))


def _model_signing(action: str, method: str, directory: Path, files: list[tuple[str, Path]]) -> str | None:
    """Run model_signing's command line; return None where that succeeds, otherwise its reason."""
    for _, path in files:
        if not path.is_file():
            raise SignatureError(f"there is no key or certificate {path}")
    version = directory.absolute()
    for path in (version, *version.rglob("*")):
        if path.is_symlink():
            raise SignatureError(f"{path} is a symbolic link", note="only files can be signed")
    options = [f"{name}={path.absolute()}" for name, path in files]
    # By itself it leaves out .gitignore and the like: anybody could add and change those.
    signature = f"--signature={version / SIGNATURE}"
    done = _command([action, method, signature, "--no-ignore-git-paths", *options, str(version)])
    if done.returncode == 0:
        return None
    _, failed, reason = done.stderr.partition(_FAILED)
    if not failed:  # it did not get as far as that
        raise SignatureError("model_signing does not run", note=(done.stderr.strip().splitlines() or ["no reason"])[-1])
    return reason.strip()


def _command(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "model_signing", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _differences(directory: Path) -> str:
    """Say how the files differ from the signed ones: "changed: model.onnx; missing: model.sm90.plan"."""
    try:
        payload = json.loads((directory / SIGNATURE).read_text())["dsseEnvelope"]["payload"]
        resources = json.loads(base64.b64decode(payload))["predicate"]["resources"]
        signed = {resource["name"]: resource["digest"] for resource in resources}
    except (ValueError, LookupError, TypeError):  # model_signing takes other spellings of these names, too
        return "which files differ cannot be told: the signature is not written as model_signing writes one"
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    present = {name: sha256(path) for name, path in files.items() if name != SIGNATURE}
    wrong = [f"missing: {name}" for name in sorted(signed.keys() - present.keys())]
    wrong += [f"not signed: {name}" for name in sorted(present.keys() - signed.keys())]
    wrong += [f"changed: {name}" for name in sorted(signed.keys() & present.keys()) if signed[name] != present[name]]
    return "; ".join(wrong)


def _made(directory: Path) -> datetime | None:
    """Return when a manifest says that the version was made; None where it does not."""
    try:
        return datetime.fromisoformat(json.loads((directory / FILE_NAME).read_text())["created_at"]).astimezone(UTC)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _meaning(reason: str) -> str:
    return next((m for pattern, m in _MEANINGS if re.search(pattern, reason)), f"model_signing says: {reason}")


def _named(files: list[tuple[str, Path]]) -> str:
    return ", ".join(dict.fromkeys(shown(path) for _, path in files))


def _path(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def _paths(variable: str) -> tuple[Path, ...]:
    return tuple(Path(path) for path in os.environ.get(variable, "").split(os.pathsep) if path)
