"""Triton's configurations in protobuf's text format, as the JSON that Triton hands to models.

The server's environment has no definition of that message, so what is a list or a map is written down here.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from python_based.errors import ModelError

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<word>[\w.+-]+)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<sign>[][{}:,;<>])"""
)
_LISTS = frozenset(
    {
        *("input", "output", "dims", "shape", "step", "instance_group", "model_warmup", "batch_input", "batch_output"),
        *("control_input", "state", "op_library_filename", "gpu_execution_accelerator", "cpu_execution_accelerator"),
        *("target_name", "source_input", "preferred_batch_size", "profile", "gpus", "versions", "control"),
    }
)
_MAPS = frozenset({"parameters", "input_map", "output_map", "cc_model_filenames", "inputs"})


def parse(text: str, name: str) -> dict[str, Any]:
    """Read a configuration.

    Args:
        name: What an error calls it.

    Raises:
        ModelError: it is none.
    """
    tokens = [*_tokens(text, name), "}"]
    try:
        found = _message(tokens, 0)[0]
    except (IndexError, ValueError, SyntaxError) as error:
        raise ModelError(f"{name} is no model configuration") from error
    return {"max_batch_size": 0, "input": [], "output": [], **found}


def _tokens(text: str, name: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if (token := _TOKEN.match(text, at)) is None:
            raise ModelError(f"{name} is no model configuration: {text[at : at + 20]!r}")
        at = token.end()
        if token.lastgroup is not None and token[0] not in (",", ";"):
            yield token[0].replace("<", "{").replace(">", "}") if token.lastgroup == "sign" else token[0]


def _message(tokens: list[str], at: int) -> tuple[dict[str, Any], int]:
    """Read the fields from `tokens[at]` up to the brace that ends them; return what is behind it, too."""
    found: dict[str, Any] = {}
    while tokens[at] != "}":
        name, at = tokens[at], at + 1
        if tokens[at] == ":":
            at += 1
        values, at = _values(tokens, at)
        for value in values:
            if name in _LISTS:
                found.setdefault(name, []).append(value)
            elif name in _MAPS:
                found.setdefault(name, {})[value["key"]] = value.get("value", {})
            else:
                found[name] = value
    return found, at + 1


def _values(tokens: list[str], at: int) -> tuple[list[Any], int]:
    """Read the value of a field, or the list of them."""
    if tokens[at] != "[":
        value, at = _value(tokens, at)
        return [value], at
    values: list[Any] = []
    at += 1
    while tokens[at] != "]":
        value, at = _value(tokens, at)
        values.append(value)
    return values, at + 1


def _value(tokens: list[str], at: int) -> tuple[Any, int]:
    token = tokens[at]
    if token == "{":  # noqa: S105  # a brace
        return _message(tokens, at + 1)
    if token[0] in "\"'":
        text = ""
        while tokens[at][0] in "\"'":  # those that follow each other are one
            text, at = text + ast.literal_eval(tokens[at]), at + 1
        return text, at
    if token in ("true", "false"):
        return token[0] == "t", at + 1
    if re.fullmatch(r"[A-Za-z_]\w*", token):
        return token, at + 1
    return (int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)), at + 1
