"""Where the stages meet on disk."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def model_repository() -> Path:
    """The Triton model repository: MODEL_REPOSITORY, else the one in git."""
    return _named("MODEL_REPOSITORY", "model_repository")


def artifacts() -> Path:
    """Everything the stages make and git ignores: ARTIFACTS_DIR (a larger disk, a test), else artifacts/."""
    return _named("ARTIFACTS_DIR", "artifacts")


def checkpoints() -> Path:
    """Checkpoints: <family>/<run>/{best,last}.ckpt."""
    return artifacts() / "checkpoints"


def examples() -> Path:
    """Test inputs as files: <family>/*.png and labels.csv."""
    return artifacts() / "examples"


def data() -> Path:
    """Datasets that were fetched: DATA_DIR, else data/."""
    return _named("DATA_DIR", "data")


def shown(path: Path) -> str:
    """`path` as a user would type it from the repository root."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _named(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, ROOT / default)).resolve()
