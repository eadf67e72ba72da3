"""Texts [B, 1] to tokens, int32 [B, L]: what this step makes of the arrays of requests.

L is the longest text of all requests at once: so they have one shape, and the network gets them as one batch, too.
Understands in config.pbtxt:
  parameters  max_tokens, max_text_bytes: limits of one text, see texts.py
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import texts
from numpy.typing import NDArray
from texts import TextError as Refused

CALLED = "the preprocessor"


class Step:
    """Knows the tokenizer, which lies beside config.pbtxt."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Read the tokenizer and the limits.

        Raises:
            ValueError: one is no whole number.
        """
        parameters, usual = config.get("parameters", {}), texts.Limits()
        limits = texts.Limits(
            tokens=_number(parameters, "max_tokens", usual.tokens),
            text_bytes=_number(parameters, "max_text_bytes", usual.text_bytes),
        )
        self.texts = texts.Texts(folder / "tokenizer.json", limits)

    def answer(self, requests: Sequence[Mapping[str, NDArray[Any]]]) -> list[Mapping[str, NDArray[Any]] | Exception]:
        """Return what each request gets: its outputs, or why it is refused."""
        read = [self._read(request["text"].ravel()) for request in requests]
        width = max((len(tokens) for found in read if isinstance(found, list) for tokens in found), default=0)
        return [_answer(found, width) if isinstance(found, list) else found for found in read]

    def _read(self, given: NDArray[Any]) -> list[list[int]] | Exception:
        """Return the tokens of each text of a request, or what is wrong with it."""
        found = []
        for index, raw in enumerate(given):
            try:
                found.append(self.texts.tokens(raw))
            except Refused as error:
                return error if len(given) == 1 else Refused(f"text {index} of {len(given)}, from 0: {error}")
        return found


def _answer(tokens: list[list[int]], width: int) -> Mapping[str, NDArray[Any]]:
    ids, mask = texts.padded(tokens, width)
    return {"input_ids": ids, "attention_mask": mask}


def _number(parameters: Mapping[str, Mapping[str, str]], name: str, usual: int) -> int:
    text = parameters[name]["string_value"] if name in parameters else str(usual)
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, not {text!r}")
    return int(text)
