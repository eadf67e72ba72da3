"""Pin the images that Dockerfiles stand on to what their registries have under the tag: `make pin-images`.

    python3 -m cli.installing.base_images Dockerfile Dockerfile.triton

A tag can be moved, a digest cannot. In a Dockerfile `ARG NAME=IMAGE:TAG@run-make-pin-images` is an image whose digest
nobody has looked up yet, and which no builder takes. Run it again to move to what the tag names by then.
"""

import argparse
import re
import shutil
import subprocess
from pathlib import Path

from cli.run import run_command_line

UNPINNED = "run-make-pin-images"
# Programs that read a digest from a registry, that of all platforms, without fetching the image; {} is its name.
_LOOKUPS = {
    "skopeo": ("skopeo", "inspect", "--no-tags", "--format={{.Digest}}", "docker://{}"),
    "docker": ("docker", "buildx", "imagetools", "inspect", "--format={{.Manifest.Digest}}", "{}"),
}
_TIMEOUT_S = 120
_BASE = re.compile(rf"(?m)^(ARG \w+=)(\S+:[\w.-]+)@({UNPINNED}|sha256:[0-9a-f]{{64}})$")


class PinError(Exception):
    """A digest could not be looked up; nothing was written."""


def main() -> int:
    """Look up every image of the Dockerfiles, then write all digests, or none."""
    parser = argparse.ArgumentParser(prog="python3 -m cli.installing.base_images", description=__doc__)
    parser.add_argument("dockerfiles", nargs="+", type=Path, metavar="DOCKERFILE")
    dockerfiles = parser.parse_args().dockerfiles
    texts = {path: path.read_text() for path in dockerfiles}
    names = {found[2] for text in texts.values() for found in _BASE.finditer(text)}
    digests = {name: look_up(name) for name in sorted(names)}
    for path, text in texts.items():
        pinned = _BASE.sub(lambda found: f"{found[1]}{found[2]}@{digests[found[2]]}", text)
        if pinned != text:
            path.write_text(pinned)
        for found in _BASE.finditer(pinned):
            print(f"{path}: {found[2]}@{found[3]}{'' if pinned != text else ', as before'}")
    return 0


def look_up(name: str) -> str:
    """Return the digest of what a registry has under a name with a tag.

    Raises:
        PinError: no program that can ask is here, or none was answered.
    """
    said = []
    for program, command in _LOOKUPS.items():
        if shutil.which(program):
            words = [word.replace("{}", name) for word in command]
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired:
                said.append(f"{program}: no answer in {_TIMEOUT_S} s")
                continue
            if re.fullmatch(r"sha256:[0-9a-f]{64}", digest := done.stdout.strip()):
                return digest
            said.append(f"{program}: {(done.stderr.strip().splitlines() or ['no digest'])[0]}")
    raise PinError(
        f"the digest of {name} could not be looked up, and nothing was changed\n"
        f"Note: {'; '.join(said) or 'no skopeo or docker is here'}\n"
        "Hint: sudo apt-get install skopeo, where the registry is reached, and run it again. "
        "An image of this machine needs no digest: --build-arg NAME=localhost/IMAGE"
    )


if __name__ == "__main__":
    run_command_line(main, PinError)
