"""Seal what serves: python -m export adopt [MODEL] [--no-serve].

A version from before bundles is its graph and plans; what lies around them changes with the repository. This makes the
next version of them: the same files, with the configurations, ensembles and steps of today. With a signing key it does
so of models that no export made, too (`by_hand`).
"""

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cli.progress import Progress
from contracts import bundle, copying, golden, layout, manifest, repository, signing
from contracts.errors import ManifestError, ProjectError, PublishError, SignatureError
from contracts.manifest import Manifest
from contracts.signing import Signer
from contracts.trust import identity
from export.published import by_hand, releases
from export.published.releases import Release
from export.release import locks, serve_gate
from export.release.seal import seal


def adopt(options: argparse.Namespace) -> int:
    """Seal what serves and is not sealed, of one network or of all.

    Returns:
        The exit code: 1 if one could not be sealed, which keeps no other from it.
    """
    signer = signing.signer_from_environment()
    found = _serving(options.repository, options.model, by_hand=signer is not None)
    done, failed = [], False
    for release in found:
        if manifest.read(release.directory).models if release.has_manifest else ():
            print(f"{release.network} version {release.version} serves, and is sealed")
            continue
        try:
            if signer is not None and not release.has_manifest:
                made = by_hand.adopt(release, signer, serve=options.serve, progress=Progress())
            else:
                made = _adopt(release, signer, serve=options.serve, progress=Progress())
        except ProjectError as error:
            print(f"error: {release.network} version {release.version} was not sealed: {error}", file=sys.stderr)
            failed = True
            continue
        done.append(made.model)
        print(f"Sealed {made.model} version {release.version} as version {made.version}, with {', '.join(made.models)}")
    if done:
        print(f"Next: python -m deploy reload {' '.join(done)}")
    return 1 if failed else 0


def _serving(root: Path, network: str | None, *, by_hand: bool) -> list[Release]:
    if network is not None:
        return [releases.one(root, network, None)]
    found = [release for release in releases.every(root) if release.state == "serving"]
    if not by_hand:
        return found
    unreleased = [releases.one(root, name, None) for name in bundle.unreleased(root)]
    return [release for release in found if release.has_manifest] + unreleased


def _adopt(release: Release, signer: Signer | None, *, serve: bool, progress: Progress) -> Manifest:
    """Publish the files of a release again, with a bundle, as the next version.

    Raises:
        ManifestError, SignatureError: it is not what was published.
        ModelConfigError, PublishError: what lies around it cannot be sealed.
        RefusedError: a Triton does not serve it with that.
    """
    folder = release.directory.parent
    with tempfile.TemporaryDirectory() as scratch, repository.new_version(folder) as staged:
        copy = Path(scratch, str(release.version))  # of what nobody else can write, so that what is verified is sealed
        before = _verified(release, copy, signer, progress)
        if releases.one(folder.parent, folder.name, None) != release:
            raise PublishError("another version serves now", hint="run the same command again")
        locks.make(folder.parent, bundle.members(folder.parent, folder.name), progress.say)
        models = bundle.write(folder.parent, folder.name, staged.directory)
        copying.copy(copy, staged.directory, {manifest.FILE_NAME, manifest.SIGNATURE})
        if not {*before.files} <= {*manifest.files_of(staged.directory)}:
            raise PublishError(f"{layout.shown(staged.directory)} changed while it was sealed")
        sealed = replace(
            before,
            version=staged.version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            gates=(),  # they were of the configurations of then; a server tells of those of today
            golden=_keep_requests(staged.directory, models),
            models=models,
            served=None,
            adopted_from=before.version,
        )
        if serve:
            sealed = serve_gate.passed(seal(sealed, staged.directory, None), staged.directory, progress)
        return seal(sealed, staged.directory, signer)


def _verified(release: Release, copy: Path, signer: Signer | None, progress: Progress) -> Manifest:
    """Copy a version and verify the copy: whose, says the environment, else the signer if it is signed.

    Raises:
        FolderError, ManifestError, SignatureError: it is not what was published, or not what was signed.
    """
    copying.copy(release.directory, copy)
    trust = signing.trust_from_environment()
    try:
        with ExitStack() as stack:
            if trust is None and signer is not None and (copy / manifest.SIGNATURE).is_file():
                trust = stack.enter_context(signing.own(signer))
            elif trust is None and signer is not None:
                progress.say(f"{release.network} version {release.version} was unsigned: who signs now vouches for it")
            return identity.verify(copy, release.network, release.version, trust)
    except (ManifestError, SignatureError) as error:  # of the files that a user knows
        raise type(error)(str(error).replace(str(copy), str(release.directory))) from error


def _keep_requests(directory: Path, models: tuple[str, ...]) -> dict[str, int]:
    """Leave out the golden requests for ensembles that are there no more; return how many each model has."""
    requests = golden.read(directory)
    kept = [request for request in requests if request.model in models]
    if len(kept) < len(requests):
        (directory / golden.FILE_NAME).unlink()
        golden.write(kept, directory)
    return dict(Counter(request.model for request in kept))
