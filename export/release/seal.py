"""Seal a version: its manifest over everything in it, and the signature over both."""

from dataclasses import replace
from pathlib import Path

from contracts import manifest, signing
from contracts.manifest import Manifest
from contracts.signing import Signer


def seal(release: Manifest, directory: Path, signer: Signer | None) -> Manifest:
    """Write the manifest of what lies in `directory`, and sign it if there is a signer; return it with its files.

    Nothing in there may be written afterwards.

    Raises:
        SignatureError: it could not be signed.
    """
    release = replace(release, files=manifest.files_of(directory))
    manifest.write(release, directory)
    if signer is not None:
        signing.sign(directory, signer)
    return release
