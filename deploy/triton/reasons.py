"""Why a model did not load, as a user reads it: Triton's reason, without the traceback, and what to do about it."""

import re
from pathlib import Path

from contracts import layout

# Packages whose name is not that of the module that is missing.
_PACKAGES = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
_MISSING = re.compile(r"No module named '([^'.]+)[^']*'")
_FRAME = re.compile(r"^ +(/.+)\((\d+)\): ", re.MULTILINE)


def without_traceback(said: str) -> str:
    """Return Triton's reason without the Python traceback that its Python backend appends."""
    return said.partition("\n\nAt:")[0].strip()


def explained(said: str, directory: Path) -> str:
    """Return the reason of a model with the place in its own code, and of a missing module where to name its package.

    Args:
        said: Triton's reason.
        directory: The model's, in the repository.
    """
    reason, _, traceback = said.partition("\n\nAt:")
    reason = reason.strip()
    own = [(Path(file), line) for file, line in _FRAME.findall(traceback) if Path(file).is_relative_to(directory)]
    where = ""
    if own:  # the innermost is the first
        directory, place = _place(own[0][0], directory)
        where = f" ({place}, line {own[0][1]})"
    if (missing := _MISSING.search(reason)) and own:
        module = missing[1]
        package = f"the package {_PACKAGES[module]}" if module in _PACKAGES else "its package"
        text = layout.shown(directory / "requirements.txt")
        return f"{missing[0]}{where}: add {package} to {text}, with its version"
    return f"{reason}{where}"


def _place(file: Path, directory: Path) -> tuple[Path, Path]:
    """Return the folder of the model that a file is of, and where it lies there; a step may lie in its ensemble."""
    place = file.relative_to(directory)
    _, *inside = place.parts  # VERSION/steps/STEP/VERSION/FILE
    if len(inside) > 2 and inside[0] == "steps":
        return directory.parent / inside[1], Path(*inside[2:])
    return directory, place
