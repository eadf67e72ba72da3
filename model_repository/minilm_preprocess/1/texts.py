"""Texts to tokens: what is read of a text, and how many of it.

What it makes of a text is what the network was trained with: training reads the same tokenizer.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


class TextError(ValueError):
    """A text is none, or is too long: its sender's fault."""


@dataclass(frozen=True)
class Limits:
    """How much of a text is read."""

    tokens: int = 256  # those that count, the two around a text among them; what follows is cut off
    text_bytes: int = 65_536  # more is refused: tokens are made of all of it, and the others of its batch wait


class Texts:
    """A tokenizer, and what it may be given."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.limits, self.tokenizer = limits, Tokenizer.from_file(str(path))
        # The file says 128 for both, and pads everything to that.
        self.tokenizer.enable_truncation(limits.tokens)
        self.tokenizer.no_padding()

    def tokens(self, raw: bytes) -> list[int]:
        """Return the tokens of a text in UTF-8, at most so many as count.

        Raises:
            TextError: it is not UTF-8, or is too long.
        """
        if len(raw) > self.limits.text_bytes:
            raise TextError(
                f"the text has {len(raw):,} bytes, and the limit is {self.limits.text_bytes:,} "
                f"(of which the first {self.limits.tokens} tokens count)"
            )
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise TextError(f"the text is not UTF-8: {error.reason} at byte {error.start}") from error
        found: list[int] = self.tokenizer.encode(text).ids
        return found


def padded(texts: Sequence[Sequence[int]], width: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the tokens of the texts and what is one of them, both int32 [B, width]."""
    ids, mask = np.zeros((len(texts), width), np.int32), np.zeros((len(texts), width), np.int32)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
