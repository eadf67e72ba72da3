"""Rows in one tensor: `records`, the JSON text of an object {input: value} a row, in place of an input for each field.

A model of tables that has it takes either: every other input is optional beside it, and the answers are the same. Each
tensor of a request costs its client and its server some microseconds, however small it is, so that two dozen of one
value each cost more than the model.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy takes a while, and `--help` names models alone
    from contracts.samples import Batch

NAME = "records"
_TEXT = ("BYTES", "STRING", "TYPE_STRING")  # as a client, an error and a configuration call it


def taken(inputs: Mapping[str, tuple[str, Sequence[int], bool]]) -> bool:
    """Tell whether a model takes records: it has that text beside other inputs, all optional, each one value a row.

    Args:
        inputs: {input: its datatype, its dims without the batch, whether it is optional}.
    """
    if len(inputs) < 2 or inputs.get(NAME, ("",))[0] not in _TEXT:
        return False
    return all(optional and [*map(int, dims)] == [1] for _, dims, optional in inputs.values())


def of_columns(columns: "Batch") -> "Batch":
    """Make of {input: [B, 1]}, texts as bytes or str, the input `records`, [B, 1]; NaN is null."""
    lists = {name: values.reshape(len(values)).tolist() for name, values in columns.items()}
    return of_rows([dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)])


def of_rows(rows: Sequence[Mapping[str, Any]]) -> "Batch":
    """Make of rows {input: value} the input `records`, [B, 1]; None and NaN are null, bytes are UTF-8."""
    import numpy as np

    found = np.empty((len(rows), 1), np.object_)
    found[:, 0] = [*_texts(rows)]
    return {NAME: found}


def _texts(rows: Iterable[Mapping[str, Any]]) -> Iterable[bytes]:
    for row in rows:
        plain = {name: _plain(value) for name, value in row.items()}
        yield json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return None if isinstance(value, float) and math.isnan(value) else value
