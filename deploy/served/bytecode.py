"""Keep Python from writing compiled code into a model that is served.

Triton would take that for a change of the model, and load it once more with the next load of an ensemble above it. Its
workers heed no PYTHONDONTWRITEBYTECODE, and a server that root started may write everywhere: so a file stands where the
folder of compiled code would be made. Python goes on without a word.
"""

from pathlib import Path

_FOLDER = "__pycache__"


def keep_out(model: Path) -> None:
    """Bar every folder of a model, a private copy, in which there is Python code."""
    for folder in {path.parent for path in model.rglob("*.py")}:
        bar = folder / _FOLDER
        if not bar.exists():
            bar.touch(mode=0o444)
