"""Sequences of the raw door: nobody gets into another caller's, whatever id it says."""

import struct
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from gateway.caller import Caller
from gateway.raw import sequences
from gateway.triton.models import Model
from tests.deploy.echoes import LENGTH, Echo
from tests.gateway.served import BULK, KEY, Gateway, gateway
from tests.gateway.tritons import Running


@pytest.fixture(scope="module")
def door(triton: Running) -> Iterator[Gateway]:
    with gateway(triton.address) as running:
        yield running


def add(connection: HTTPConnection, key: dict[str, str], value: float, **more: object) -> float | str:
    """Add to a sequence; its sum, or what was said instead."""
    echo = Echo("summing", (1, 1), struct.pack("<f", value), "FP32")
    header = echo.header(parameters={"sequence_id": 1, **more})
    connection.request("POST", echo.path, header + echo.content, {LENGTH: str(len(header)), **key})
    response = connection.getresponse()
    said = response.read()
    if response.status != 200:
        return said.decode()
    [found] = struct.unpack("<f", said[-4:])
    return float(found)


def test_two_callers_with_one_id_have_two_sequences(door: Gateway) -> None:
    mine, other = door.connect(), door.connect()
    assert add(mine, KEY, 1, sequence_start=True) == 1
    assert "START" in str(add(other, BULK, 10))  # it has begun none
    assert add(other, BULK, 10, sequence_start=True) == 10
    assert add(mine, KEY, 2) == 3
    assert add(other, BULK, 20, sequence_end=True) == 30
    assert add(mine, KEY, 4, sequence_end=True) == 7


def stateful(datatype: str | None) -> Model:
    control = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": datatype}
    config = {"sequence_batching": {"control_input": [{"name": "ID", "control": [control]}] if datatype else []}}
    return Model("m", "1", ("1",), 1, (), (), config)


@pytest.mark.parametrize(
    ("datatype", "bits"), [("TYPE_INT32", 31), ("TYPE_UINT32", 31), ("TYPE_INT64", 63), ("TYPE_UINT64", 63), (None, 63)]
)
def test_an_id_is_its_callers_and_fits_what_the_model_takes(datatype: str | None, bits: int) -> None:
    model, callers = stateful(datatype), [Caller("k1", "a"), Caller("k2", "a"), Caller(None, "a"), Caller(None, "b")]
    found = [sequences.own(caller, model, given) for caller in callers for given in range(1, 100)]
    assert len(set(found)) == len(found)
    assert found == [sequences.own(caller, model, given) for caller in callers for given in range(1, 100)]
    assert all(isinstance(each, int) and 0 < each < 2**bits for each in found)


def test_a_text_stays_a_text_and_none_none() -> None:
    model, caller = stateful("TYPE_STRING"), Caller("k1", "a")
    texts = {sequences.own(caller, model, given) for given in ("1", "2", "Größe 😀" * 30)}
    assert len(texts) == 3 and all(isinstance(each, str) and len(each) == 32 for each in texts)
    assert sequences.own(caller, model, None) is None
