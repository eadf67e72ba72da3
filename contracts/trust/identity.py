"""A release is what was published, under the name and the number that it was published with.

A signature tells whose files these are. It does not tell where they lie: a signed version that somebody copied to
another number, or into the folder of another model, is as well signed as before. So its manifest has to name both.
"""

from pathlib import Path

from contracts import layout, manifest, signing
from contracts.errors import ManifestError, SignatureError
from contracts.manifest import Manifest
from contracts.signing import Trust
from contracts.trust import inside


def verify(directory: Path, network: str, version: int, trust: Trust | None) -> Manifest:
    """Check the files of a release, whose they are and what it is called; return its manifest.

    What was checked is what lies there only where nobody else can write: take a copy first.

    Args:
        network: The model that it has to be a version of.
        version: The number that it has to have, parked or not.
        trust: What it must be signed with; None: nobody asks.

    Raises:
        ManifestError: it is not what was published, or another version.
        SignatureError: it is unsigned, or not what was signed.
    """
    if trust is not None:
        signing.verify(directory, trust)
    told = manifest.verify(directory)
    if (told.model, told.version) != (network, version):
        raise ManifestError(
            f"{directory} is not {network} version {version}",
            note=f"it was published as {told.model} version {told.version}, and somebody has put it there",
            hint="remove it, and publish under this name: python -m export",
        )
    return told


def verify_sealed(directory: Path, network: str, version: int, trust: Trust | None) -> Manifest:
    """Check a release as `verify` does, for a server: where it has to be signed, all that decides its answers has to.

    Raises:
        ManifestError: as `verify`.
        SignatureError: as `verify`, or it takes its configurations and steps from the repository, or has the server
            open what lies elsewhere.
    """
    told = verify(directory, network, version, trust)
    if trust is not None and not told.models:
        raise unsealed(directory, "the configurations, ensembles and steps around it")
    if trust is not None:
        inside.check(directory)
    return told


def verify_for_serving(directory: Path, network: str, version: int, trust: Trust | None) -> None:
    """Check a version as `verify_sealed` does, if it is a release; a model that somebody put there need not be one.

    Where it has to be signed, a graph or an engine makes a release, lest removing the manifest be a way around this.

    Raises:
        ManifestError, SignatureError: as `verify_sealed`.
    """
    if (directory / manifest.FILE_NAME).is_file():
        verify_sealed(directory, network, version, trust)
    elif trust and any(path.suffix in (".onnx", ".plan") for path in directory.iterdir()):
        signing.verify(directory, trust)


def unsealed(place: Path, what: str) -> SignatureError:
    """Return the error of what no signature can cover, because no export has sealed it.

    Args:
        what: The models, or what else it is.
    """
    return SignatureError(
        f"{layout.shown(place)} is unsealed: no signature covers {what}",
        hint="seal and sign it: SIGNING_KEY=FILE python -m export adopt",
    )
