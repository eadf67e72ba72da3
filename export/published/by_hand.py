"""Seal models that no export made: Python models, and graphs that somebody put into the repository.

Nothing about them was proven, and their manifest says nothing of a variant or a gate. It lists their files, and with
them those of the ensembles above and of their steps, so that a signature covers all that decides an answer.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cli.progress import Progress
from contracts import bundle, copying, layout, manifest, repository
from contracts.errors import PublishError
from contracts.manifest import Manifest, Source
from contracts.signing import Signer
from export.published.releases import Release
from export.release import locks, serve_gate
from export.release.seal import seal
from export.tools import tool_versions


def adopt(release: Release, signer: Signer, *, serve: bool, progress: Progress) -> Manifest:
    """Publish the files of a version that has no manifest as the next one, sealed and signed.

    Raises:
        ModelConfigError, PublishError: what lies around it cannot be sealed.
        FolderError: it holds what is no file.
        RefusedError: a Triton does not serve it.
    """
    folder, network = release.directory.parent, release.network
    with tempfile.TemporaryDirectory() as scratch, repository.new_version(folder) as staged:
        copy = Path(scratch, str(release.version))
        copying.copy(release.directory, copy, outside=True)
        files = manifest.files_of(copy)
        if not files:
            raise PublishError(f"{layout.shown(release.directory)} is empty", hint="a model's version holds its files")
        locks.make(folder.parent, bundle.members(folder.parent, network), progress.say)
        models = bundle.write(folder.parent, network, staged.directory)
        copying.copy(copy, staged.directory)
        first = next((file for file in files if file.path.startswith("model.")), files[0])
        sealed = Manifest(
            family=network,
            model=network,
            version=staged.version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=f"python -m export adopt {network}",
            source=Source(first.path, first.sha256, "", None, None, None),
            tools=tool_versions(),
            calibration_samples=0,
            test_samples=0,
            reference_score=None,
            gates=(),
            variants=(),
            trials=(),
            sensitivity=(),
            choices=(),
            files=(),
            models=models,
            adopted_from=release.version,
        )
        if serve:
            sealed = serve_gate.passed(seal(sealed, staged.directory, None), staged.directory, progress)
        return seal(sealed, staged.directory, signer)
