"""Real builds refuse a base that a registry could move under its tag, and take what a digest or this machine names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.installing import base_images
from contracts import layout
from tests.cli import registry
from tests.cli.registry import Registry
from tests.images import build, debian, podman
from tests.images.podman import ImageError

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.usefixtures("images")]

BASES = {"Dockerfile": "PYTHON", "Dockerfile.triton": "TRITON"}
NAME = "pinned:test"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that has the Debian of these tests as base/debian:1."""
    with registry.started(tmp_path_factory.mktemp("registry")) as up, pytest.MonkeyPatch.context() as patched:
        patched.setenv("CONTAINERS_REGISTRIES_CONF", str(up.home / ".config" / "containers" / "registries.conf"))
        podman.call("push", "--quiet", debian.image(), f"docker://{up.address}/base/debian:1")
        yield up
        podman.call("rmi", f"{up.address}/base/debian:1", check=False)  # the name that a build gave to what it fetched


def begun(file: str, folder: Path) -> Path:
    """The first stage of a Dockerfile as far as it looks at what it stands on."""
    text = (layout.ROOT / file).read_text()
    (folder / "Dockerfile").write_text(text.partition("\nWORKDIR ")[0] + "\n")
    return folder / "Dockerfile"


@pytest.mark.parametrize("file", BASES)
def test_as_it_is_shipped_nothing_is_fetched_and_it_is_said_what_to_run(file: str, tmp_path: Path) -> None:
    text = (layout.ROOT / file).read_text()
    if re.search(rf"^ARG {BASES[file]}=\S+@sha256:", text, re.MULTILINE):
        pytest.skip("its digest has been looked up")
    with pytest.raises(ImageError, match=r"@run-make-pin-images(?s:.*)invalid reference format"):
        build.build(begun(file, tmp_path), NAME, context=tmp_path)


@pytest.mark.parametrize("file", BASES)
def test_a_tag_alone_is_refused_and_a_digest_and_an_image_of_this_machine_are_taken(
    file: str, published: Registry, tmp_path: Path
) -> None:
    dockerfile, tagged = begun(file, tmp_path), f"{published.address}/base/debian:1"
    with pytest.raises(ImageError, match=re.escape(f"error: {tagged} has no digest. Hint: make pin-images")):
        build.build(dockerfile, NAME, context=tmp_path, arguments={BASES[file]: tagged})
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(published.home))
        patched.setenv("PATH", str(registry.program("skopeo").parent), prepend=":")
        digest = base_images.look_up(tagged)
    for base in (f"{tagged}@{digest}", debian.image()):
        assert build.build(dockerfile, NAME, context=tmp_path, arguments={BASES[file]: base}).identity
