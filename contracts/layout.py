"""Where the stages meet on disk."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MODEL_REPOSITORY = Path(os.environ.get("MODEL_REPOSITORY", ROOT / "model_repository")).resolve()
# Everything the stages make and git ignores. Another place (a larger disk, a test) is one variable away.
ARTIFACTS = Path(os.environ.get("ARTIFACTS_DIR", ROOT / "artifacts")).resolve()
CHECKPOINTS = ARTIFACTS / "checkpoints"  # <family>/<run>/{best,last}.ckpt
EXAMPLES = ARTIFACTS / "examples"  # <family>/*.png and labels.csv
DATA = Path(os.environ.get("DATA_DIR", ROOT / "data")).resolve()


def shown(path: Path) -> str:
    """`path` as a user would type it from the repository root."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
