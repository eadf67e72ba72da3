"""Where the stages meet on disk."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is meant where no family is named. Its ensemble has its name; nothing else outside its folders knows of it.
DEFAULT_FAMILY = "fashion"


def model_repository() -> Path:
    """Return the Triton model repository: MODEL_REPOSITORY, else the one in git."""
    return _named("MODEL_REPOSITORY", "model_repository")


def artifacts() -> Path:
    """Return the folder of all that the stages make and git ignores: ARTIFACTS_DIR (a larger disk), else artifacts/."""
    return _named("ARTIFACTS_DIR", "artifacts")


def checkpoints() -> Path:
    """Return the folder of the checkpoints: <family>/<run>/{best,last}.ckpt."""
    return artifacts() / "checkpoints"


def model_params() -> Path:
    """Return the folder of the presets of families that have several models: <family>/<model>.yaml."""
    return ROOT / "configs" / "model_params"


def approval_rules() -> Path:
    """Return the file that says who may approve a release: APPROVAL_RULES, else the one in git."""
    return _named("APPROVAL_RULES", "configs/approval.toml")


def sweeps() -> Path:
    """Return the folder of what searches try: <family>/<preset>.yaml."""
    return ROOT / "configs" / "sweeps"


def searches() -> Path:
    """Return the folder of the searches: <study>/trials/<number>/."""
    return artifacts() / "sweeps"


def examples() -> Path:
    """Return the folder of test inputs as files: <family>/*.png and labels.csv."""
    return artifacts() / "examples"


def data() -> Path:
    """Return the folder of the datasets that were fetched: DATA_DIR, else data/."""
    return _named("DATA_DIR", "data")


def shown(path: Path) -> str:
    """Return `path` as a user would type it: relative to the working directory where it is below that."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _named(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, ROOT / default)).resolve()
