"""Plans of other GPUs that go with a new version: each GPU machine adds its own, and a version serves all of them."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from contracts import copying, manifest, repository, signing
from contracts.errors import ProjectError
from contracts.manifest import Choice, Manifest
from contracts.trust import identity
from export.proof import engine, plans


def carry_plans(
    release: Manifest, model_directory: Path, directory: Path, say: Callable[[str], None], *,
    profile: engine.Profile, server_tensorrt: str, signer: signing.Signer | None,
) -> tuple[Choice, ...]:  # fmt: skip
    """Copy into `directory` the plans of the newest version before that are plans of this release, too.

    One is if it was built from a graph that has just passed again, for the same shapes, by the server's TensorRT. What
    stays behind is said, with the reason. A plan that was built for its own GPUs is not replaced by one that runs on
    every newer one, which is slower.

    Args:
        profile: The shapes that plans of this release are built for.
        signer: Who will sign the release, and with it what is carried along: the version before has to be signed, too.

    Returns:
        The choices of the release with those.
    """
    earlier = [version for version in repository.versions(model_directory) if version < release.version]
    if not earlier:
        return release.choices
    number = earlier[-1]
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch, str(number))
        try:
            choices = _verified(model_directory, number, before, signer)
        except ProjectError as error:
            told = str(error).replace(str(before), str(model_directory / str(number)))
            say(f"No plan is taken along from version {number}: {told}")
            return release.choices
        own = {choice.file: choice for choice in release.choices}
        for choice in choices:
            reasons = "; ".join(_reasons(choice, release, before, profile, server_tensorrt))
            replaced = own.get(choice.file)
            if reasons:
                say(f"{choice.file} of version {number} stays behind: {reasons}")
            elif replaced is None or (_for_newer(replaced) and not _for_newer(choice)):
                shutil.copyfile(before / choice.file, directory / choice.file)
                own[choice.file] = choice
                if replaced is not None:
                    say(f"{choice.file} stays that of version {number}, which was built for such a GPU alone")
        return tuple(own.values())


def _verified(model_directory: Path, version: int, copy: Path, signer: signing.Signer | None) -> list[Choice]:
    """Copy a version to where nobody else can write, verify the copy, and return which plans it has.

    Raises:
        ManifestError: it is not what was published.
        SignatureError: a signer would vouch for it, and it is not signed by whom the environment names, or by itself.
        FolderError: it holds what is no file.
    """
    original = model_directory / str(version)
    if not any(choice.engine is not None for choice in manifest.read(original).choices):
        return []
    copying.copy(original, copy)
    with ExitStack() as stack:
        trust = None
        if signer is not None:
            trust = signing.trust_from_environment() or stack.enter_context(signing.own(signer))
        found = identity.verify(copy, model_directory.name, version, trust)
    listed = {file.path for file in found.files}  # or a name could lead out of the version
    return [choice for choice in found.choices if choice.engine is not None and choice.file in listed]


def _reasons(
    choice: Choice, release: Manifest, before: Path, profile: engine.Profile, server_tensorrt: str
) -> Iterator[str]:
    """Say why a plan of the version before is none of this release."""
    passed = {variant.sha256 for variant in release.variants if variant.passed}
    passed |= {v.engine.graph_sha256 for v in release.variants if v.passed and v.engine is not None}
    if choice.graph_sha256 not in passed:
        yield f"its {choice.precision} graph is not one that has passed now"
    if choice.engine is not None and choice.engine.profile != profile:
        yield "it was built for other shapes"
    if not (gate := plans.server_gate((before / choice.file).read_bytes(), server_tensorrt)).passed:
        yield gate.detail


def _for_newer(choice: Choice) -> bool:
    return choice.engine is not None and choice.engine.hardware_compatible
