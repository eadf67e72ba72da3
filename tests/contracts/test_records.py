"""Rows of a table as one JSON text each: what is sent in place of a column for each input, and who takes that."""

import json
import math

import numpy as np
import pytest

from contracts import golden
from contracts.entities import records
from contracts.entities.filling import fill
from contracts.entities.tables import Tables
from contracts.golden import GoldenRequest
from contracts.samples import Batch
from tests.ferries import ENTITIES, tables

Inputs = dict[str, tuple[str, tuple[int, ...], bool]]
TAKES: Inputs = {"records": ("BYTES", (1,), True), "line": ("BYTES", (1,), True), "tide": ("FP32", (1,), True)}


def test_a_model_takes_records_if_it_can_do_without_each_of_its_inputs() -> None:
    assert records.taken(TAKES)
    assert records.taken({**TAKES, "records": ("TYPE_STRING", (1,), True)})
    assert records.taken({name: (kind, ("1",), left) for name, (kind, _, left) in TAKES.items()})  # type: ignore[misc]


@pytest.mark.parametrize(
    "changed",
    [
        {"tide": ("FP32", (1,), False)},
        {"records": ("BYTES", (1,), False)},
        {"records": ("BYTES", (2,), True)},
        {"records": ("UINT8", (1,), True)},
        {"tide": ("FP32", (24,), True)},
        {"tide": ("FP32", (), True)},
    ],
)
def test_one_that_only_looks_so_does_not(changed: Inputs) -> None:
    assert not records.taken({**TAKES, **changed})


def test_records_beside_nothing_are_a_text_like_any_other() -> None:
    assert not records.taken({"records": ("BYTES", (1,), True)}) and not records.taken({})
    assert not records.taken({name: told for name, told in TAKES.items() if name != "records"})


def test_columns_become_objects_that_give_back_every_value() -> None:
    columns = {
        "line": np.array([[b"A"], ['Zo\u00eb "\\\n'.encode()], [""]], np.object_),
        "tide": np.array([[0.1], [np.nan], [3.4028235e38]], np.float32),
        "built": np.array([[2**53 + 1], [-1], [0]], np.int64),
        "open": np.array([[True], [False], [True]]),
    }
    made = records.of_columns(columns)["records"]
    assert made.shape == (3, 1) and {type(text) for text in made[:, 0]} == {bytes}
    rows = [json.loads(text) for text in made[:, 0]]
    assert [row["line"] for row in rows] == ["A", 'Zo\u00eb "\\\n', ""]
    assert [row["built"] for row in rows] == [2**53 + 1, -1, 0] and rows[1]["open"] is False
    back = np.array([math.nan if row["tide"] is None else row["tide"] for row in rows], np.float32)
    assert back.tobytes() == columns["tide"][:, 0].tobytes()


def test_what_json_has_not_is_no_record() -> None:
    with pytest.raises(UnicodeDecodeError):
        records.of_columns({"line": np.array([[b"\xff"]], np.object_)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.of_columns({"tide": np.array([[np.inf]], np.float32)})


def test_what_is_measured_is_asked_in_one_way() -> None:
    columns: Batch = {name: np.zeros((1, 1), np.float32) for name in ("tide", "built")}
    asked = [GoldenRequest("ferries", inputs, {}) for inputs in (columns, records.of_columns(columns), columns)]
    assert golden.one_way(asked) == (asked[1],)
    assert golden.one_way(asked[::2]) == (asked[0], asked[2]) and golden.one_way(()) == ()


def test_entities_that_were_filled_are_records_as_well() -> None:
    rows = [{"line": "A", "pier": "North", "departure": "2013-11-03T03:10"}] * 2
    filled = fill(ENTITIES, rows, Tables(ENTITIES, tables()))
    found = [json.loads(text) for text in filled.records["records"][:, 0]]
    assert found[0] == found[1] and found[0].keys() == filled.inputs.keys()
    assert found[0]["tonnes"] is None and found[0]["built"] == filled.inputs["built"][0, 0]
