"""Magika, Google's classifier of file types, and files of this Python environment to prove it with.

  python -m examples.magika.make_inputs

writes artifacts/examples/magika/model.onnx, fetched by pip out of the wheel that ships it (4 MB), and samples.npz:
"bytes", the beginning and end of each file as the network was trained to get them, and "labels", what their
extensions say they are. The files differ between machines and so do the figures; on one machine they are the same.
"""

import argparse
import sysconfig
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError
from contracts.files import spec_file
from examples import wheel

SPEC = Path(__file__).with_name("spec.toml")
END = 1024  # bytes from either end of a file
PADDING = 256  # no byte has this value

_WHEEL = "magika==1.0.3"
_MEMBER = "magika/models/standard_v3_3/model.onnx"
_DIGEST = "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
_BLOCK = 4096  # read from either end, before white space is stripped
_FEWEST = 8  # bytes that Magika asks its network about
_FILES_PER_LABEL = 40
_SEED = 0
# The extensions in a Python environment that say what a file is; .txt, .h or .pb may be one of several.
_LABELS = {
    ".bz2": "bzip",
    ".c": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".hpp": "cpp",
    ".cmake": "cmake",
    ".css": "css",
    ".csv": "csv",
    ".exe": "pebin",
    ".f90": "fortran",
    ".gif": "gif",
    ".gz": "gzip",
    ".html": "html",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".npy": "npy",
    ".npz": "npz",
    ".onnx": "onnx",
    ".pdf": "pdf",
    ".pem": "pem",
    ".png": "png",
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".rst": "rst",
    ".so": "elf",
    ".svg": "svg",
    ".toml": "toml",
    ".ttf": "ttf",
    ".wav": "wav",
    ".xml": "xml",
    ".yaml": "yaml",
    ".zip": "zip",
}


def main() -> int:
    """Fetch the graph and write its representative inputs; return the exit code."""
    argparse.ArgumentParser(
        prog="python -m examples.magika.make_inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    directory = layout.artifacts() / "examples" / "magika"
    model = wheel.fetch(_WHEEL, _MEMBER, _DIGEST, directory / "model.onnx")
    names = spec_file.read(SPEC).labels
    chosen = [(file, label) for label, files in _files().items() for file in files]
    np.random.default_rng(_SEED).shuffle(chosen)  # so that either half of the samples has every label
    labels = np.array([names.index(label) for _, label in chosen], np.int64)
    samples = directory / "samples.npz"
    np.savez(samples, bytes=np.stack([read(file) for file, _ in chosen]), labels=labels)
    print(f"Wrote {layout.shown(model)} and, from {len(labels)} files of {len(set(labels))} types, ", end="")
    print(layout.shown(samples))
    print(
        f"Next: python -m export --onnx {layout.shown(model)} --spec {layout.shown(SPEC)}"
        f" --inputs {layout.shown(samples)}"
    )
    return 0


def read(path: Path) -> NDArray[np.int32]:
    """Read a file as the network's input, int32 [2 * END]: its first and last END bytes, white space stripped off.

    As `_extract_features_from_seekable` in magika 1.0.3 does it.
    """
    with path.open("rb") as stream:
        first = stream.read(_BLOCK).lstrip()[:END]
        stream.seek(max(0, path.stat().st_size - _BLOCK))
        last = stream.read(_BLOCK).rstrip()[-END:]
    row = np.full(2 * END, PADDING, np.int32)
    row[: len(first)] = list(first)
    row[len(row) - len(last) :] = list(last)
    return row


def _files() -> dict[str, list[Path]]:
    """Choose up to _FILES_PER_LABEL files of each label, spread over the environment and always the same ones."""
    found = defaultdict(list)
    for root in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")}):
        for path in sorted(Path(root).rglob("*")):
            label = _LABELS.get(path.suffix)
            if label and path.is_file() and path.stat().st_size >= _FEWEST:
                found[label].append(path)
    return {label: _spread(found[label]) for label in sorted(found)}


def _spread(files: list[Path]) -> list[Path]:
    places = np.linspace(0, len(files) - 1, min(_FILES_PER_LABEL, len(files)))
    return [files[int(place)] for place in places]


if __name__ == "__main__":
    run_command_line(main, ProjectError)
