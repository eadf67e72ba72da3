"""Releases of a few bytes: what decides an answer is all there, and nothing could give one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from contracts import manifest
from contracts.manifest import Choice, Manifest, Source, Variant

NETWORK = 'name: "net" backend: "onnxruntime"'
PYTHON = 'backend: "python"'


def ensemble(*steps: str, version: int = -1) -> str:
    described = ", ".join(f'{{ model_name: "{step}" model_version: {version} }}' for step in steps)
    return f'platform: "ensemble" ensemble_scheduling {{ step [ {described} ] }}'


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def release_of(models: tuple[str, ...], **more: object) -> Manifest:
    variant = Variant("fp32", None, (), 3, "00")
    release = Manifest(
        *("family", "net", 2, "2026-01-01T00:00:00+00:00", "python -m export"),
        Source("model.onnx", "00", "11", None, None, None),
        tools={}, calibration_samples=1, test_samples=1, reference_score=None, gates=(), variants=(variant,),
        trials=(), sensitivity=(), choices=(Choice("model.onnx", "fp32", "the only one"),), files=(), models=models,
    )  # fmt: skip
    return dataclasses.replace(release, **more)  # type: ignore[arg-type]


def published(root: Path, version: int, place: str | None = None, **more: object) -> Path:
    """Put a version of `net` into a repository, by default without a bundle, as they were published before.

    Args:
        place: Its folder, if that is not its number.
        more: What else its manifest says.
    """
    directory = written(root / "net" / (place or str(version)), {"model.onnx": f"graph {version}"})
    release = release_of((), version=version, files=manifest.files_of(directory))
    manifest.write(dataclasses.replace(release, **more), directory)  # type: ignore[arg-type]
    return directory
