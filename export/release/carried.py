"""Plans of other GPUs that go with a new version: each GPU machine adds its own, and a version serves all of them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from contracts import manifest, repository
from contracts.errors import ManifestError
from contracts.manifest import Choice, Manifest
from export.proof import engine, plans


def carry_plans(
    release: Manifest, model_directory: Path, directory: Path, say: Callable[[str], None], *,
    profile: engine.Profile, server_tensorrt: str,
) -> tuple[Choice, ...]:  # fmt: skip
    """Copy into `directory` the plans of the newest version before that are plans of this release, too.

    One is if it was built from a graph that has just passed again, for the same shapes, by the server's TensorRT. What
    stays behind is said, with the reason. A plan that was built for its own GPUs is not replaced by one that runs on
    every newer one, which is slower.

    Args:
        profile: The shapes that plans of this release are built for.

    Returns:
        The choices of the release with those.
    """
    earlier = [version for version in repository.versions(model_directory) if version < release.version]
    if not earlier:
        return release.choices
    before = model_directory / str(earlier[-1])
    try:
        found = [choice for choice in manifest.verify(before).choices if choice.engine is not None]
    except ManifestError as error:
        say(f"No plan is taken along from version {before.name}: {error}")
        return release.choices
    own = {choice.file: choice for choice in release.choices}
    for choice in found:
        reasons = "; ".join(_reasons(choice, release, before, profile, server_tensorrt))
        replaced = own.get(choice.file)
        if reasons:
            say(f"{choice.file} of version {before.name} stays behind: {reasons}")
        elif replaced is None or (_for_newer(replaced) and not _for_newer(choice)):
            shutil.copyfile(before / choice.file, directory / choice.file)
            own[choice.file] = choice
            if replaced is not None:
                say(f"{choice.file} stays that of version {before.name}, which was built for such a GPU alone")
    return tuple(own.values())


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
