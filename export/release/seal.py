"""Seal a version: its manifest over everything in it, and the signature over both."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from contracts import copying, layout, manifest, signing
from contracts.errors import PublishError
from contracts.manifest import Manifest
from contracts.signing import Signer


def seal(release: Manifest, directory: Path, signer: Signer | None) -> Manifest:
    """Write the manifest of what lies in `directory`, and sign it if there is a signer; return it with its files.

    Nothing in there may be written afterwards.

    Raises:
        SignatureError: it could not be signed.
        PublishError, ManifestError: somebody changed it meanwhile; nothing was signed.
    """
    release = replace(release, files=manifest.files_of(directory))
    manifest.write(release, directory)
    if signer is not None:
        _sign(release, directory, signer)
    return release


def _sign(release: Manifest, directory: Path, signer: Signer) -> None:
    """Sign a copy that nobody else writes, and only if it is what the manifest says that we hold in our hands."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, directory.name)
        copying.copy(directory, copy)
        if (copy / manifest.FILE_NAME).read_text() != manifest.text(release):
            raise PublishError(f"{layout.shown(directory)} was changed while it was signed")
        manifest.verify(copy)
        signing.sign(copy, signer)
        shutil.copyfile(copy / manifest.SIGNATURE, directory / manifest.SIGNATURE)
