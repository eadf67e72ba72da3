"""Texts as the network takes them: the tokens that serving makes of them, padded to the longest of a batch.

The tokenizer is the one that serves: its file lies with the step that runs it, and travels with a release.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contracts import layout
from training.families.minilm.spec import TOKENS

Tokens = Sequence[int]


def path() -> Path:
    """Return the tokenizer's file."""
    return layout.model_repository() / "minilm_preprocess" / "tokenizer.json"


@functools.cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path()))
    # By itself it cuts, and pads, at 128.
    tokenizer.enable_truncation(TOKENS.max)
    tokenizer.no_padding()
    return tokenizer


def encode(texts: Sequence[str]) -> list[Tokens]:
    """Return the tokens of each text, the two around it among them."""
    return [encoding.ids for encoding in _tokenizer().encode_batch(list(texts))]


def padded(texts: Sequence[Tokens]) -> dict[str, NDArray[np.int32]]:
    """Return the network's inputs, int32 [B, L], L being the longest of them."""
    shape = len(texts), max(map(len, texts))
    ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}
