"""Test images as files, for whoever wants to send some."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.families.fashion.data import DataModule
from training.families.fashion.spec import SPEC


def write(directory: Path, count: int) -> int:
    """Replace `directory` by the first `count` test images as PNG and `labels.csv` (file, label).

    Returns:
        How many images were written.
    """
    images, labels = _test_images()
    shutil.rmtree(directory, ignore_errors=True)  # what labels.csv lists is all there is
    directory.mkdir(parents=True)
    with (directory / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for index, (image, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
            name = f"{index:05d}.png"
            Image.fromarray(image[0]).save(directory / name)
            rows.writerow([name, SPEC.labels[label]])
    return min(count, len(images))


def requests(count: int) -> dict[str, NDArray[Any]]:
    """Return the first `count` test images as the ensemble takes them: {"image": PNG files, bytes [count, 1]}."""
    images, _ = _test_images()
    encoded = np.empty((min(count, len(images)), 1), np.object_)
    for row, image in zip(encoded, images, strict=False):
        stream = io.BytesIO()
        Image.fromarray(image[0]).save(stream, "PNG")
        row[0] = stream.getvalue()
    return {"image": encoded}


def _test_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    [group] = DataModule().split("test").groups
    assert group.targets is not None  # every image has its label
    return group.inputs["pixels"], group.targets
