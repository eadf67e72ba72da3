"""Write the locks anew, each with the SHA-256 of every file that the package index has of a version.

    make lock       what pyproject.toml, deploy/*.in and configs/environments/*.in ask, with few new versions
    make upgrade    the same with the newest versions of everything

uv resolves. It takes no notice of pip's settings: UV_DEFAULT_INDEX names another index than the public one.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cli.run import run_command_line

PROJECT, TORCH, TORCH_CPU = Path("requirements.lock"), Path("torch.lock"), Path("torch-cpu.lock")
# Beside what pyproject.toml asks: {what is asked: options}. The lock is NAME.lock beside NAME.in.
OTHERS = {
    Path("deploy/commands.in"): ("--constraint", str(PROJECT)),
    Path("deploy/image.in"): ("--constraint", str(PROJECT)),
    Path("deploy/server.in"): ("--no-deps",),
    Path("deploy/server-gpu.in"): ("--no-deps",),
    Path("deploy/bindings.in"): ("--no-deps",),
    Path("deploy/mlflow/server.in"): ("--constraint", str(PROJECT)),
    Path("deploy/gateway/server.in"): ("--constraint", str(PROJECT)),
    Path("configs/environments/data.in"): (),
    Path("configs/environments/ray.in"): (),
    Path("configs/environments/k6.in"): (),
    Path("configs/environments/envoy.in"): (),
    **{
        Path(f"configs/environments/peer-{name}.in"): ()
        for name in ("fastapi", "litserve", "bentoml", "ray", "mlserver")
    },
}
# All files of a version are listed, for every platform and Python. What packages need is the same from 3.11 to 3.13.
_RESOLVED_FOR = ("--python-version=3.11", "--python-platform=x86_64-manylinux_2_35")
_PLAIN = ("--quiet", "--generate-hashes", "--no-header", "--no-annotate")
# Its right version depends on the machine's glibc, and no lock of ours needs it.
_LEFT_OUT = "perf-analyzer"
# torch, and what its builds with CUDA need alone: nvidia-modelopt and nvidia-ml-py are ours.
_OF_TORCH = re.compile(r"(?:torch|triton|cuda-toolkit|nvidia-(?!modelopt|ml-py)[a-z0-9-]+)==")


class LockError(Exception):
    """No versions go together, or the index cannot be read."""


def main() -> int:
    """Write every lock of the repository, from the folder that pyproject.toml is in."""
    parser = argparse.ArgumentParser(prog="python -m cli.installing.locks", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, not those that are locked")
    upgrade = parser.parse_args().upgrade
    options = ["--upgrade"] if upgrade else []
    asked = ["--extra=dev", f"--no-emit-package={_LEFT_OUT}", *options]
    found = resolve(Path("pyproject.toml"), asked, locked=entries(PROJECT) + entries(TORCH))
    write(PROJECT, [entry for entry in found if not _OF_TORCH.match(entry)])
    write(TORCH, [entry for entry in found if _OF_TORCH.match(entry)])
    for source, more in OTHERS.items():
        lock = source.with_suffix(".lock")
        write(lock, resolve(source, [*more, *options], locked=entries(lock)))
    _write_torch_without_cuda()
    return 0


def entries(lock: Path) -> list[str]:
    """Return the packages of a lock, each with its hashes: `name==version`, then a line a hash."""
    if not lock.exists():
        return []
    return [entry for entry in re.split(r"^(?=[^\s#])", lock.read_text(), flags=re.MULTILINE) if "==" in entry]


def resolve(source: Path | str, options: Sequence[str], *, locked: Sequence[str] = ()) -> list[str]:
    """Let uv resolve.

    Args:
        source: A file with what is asked, or its text.
        locked: Entries whose versions are kept where they can be.

    Raises:
        LockError: with what uv says.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch, "new.lock")
        lock.write_text("".join(locked))
        name, text = ("-", source) if isinstance(source, str) else (str(source), None)
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *_PLAIN, *_RESOLVED_FOR, *options]
        done = subprocess.run(
            [*command, f"--output-file={lock}", name], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LockError(f"uv cannot resolve {text or source}\nNote: {done.stderr.strip()}")
        return entries(lock)


def write(lock: Path, found: Sequence[str]) -> None:
    """Write a lock below the comments that it begins with."""
    head = re.match(r"(?:#.*\n)*", lock.read_text() if lock.exists() else "")
    lock.write_text((head[0] if head else "") + "".join(found))


def _write_torch_without_cuda() -> None:
    """Write the lock of PyTorch's own build for CPUs, which another index has; where that is not reached it stays.

    Raises:
        LockError: the index is not reached, and what is there is of another version.
    """
    version = next(entry for entry in entries(TORCH) if entry.startswith("torch==")).split()[0]
    try:
        write(TORCH_CPU, resolve(f"{version}\n", ["--no-deps", "--torch-backend=cpu"]))
    except LockError as error:
        if not any(entry.startswith(f"{version}+cpu ") for entry in entries(TORCH_CPU)):
            raise LockError(f"{TORCH_CPU} is not of {version}, and PyTorch's index is not reached\n{error}") from error
        print(f"{TORCH_CPU} stays: it is of {version}, and PyTorch's index is not reached", file=sys.stderr)


if __name__ == "__main__":
    run_command_line(main, LockError)
