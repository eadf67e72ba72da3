"""The JSON before the tensors of a request: read, and written again as it goes to Triton.

What is not listed here is refused, whatever it means; so shared memory is, and JSON tensors.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.raw import strict
from gateway.raw.strict import refused

MOST_BYTES = 64 * 1024  # of the JSON
MOST_TEXT = 256  # characters of an id
MOST_CLASSES = 10_000
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and halves of one
_REQUEST = frozenset(("id", "parameters", "inputs", "outputs"))
_INPUT = frozenset(("name", "datatype", "shape", "parameters"))
_OUTPUT = frozenset(("name", "parameters"))
_SIZE = frozenset(("binary_data_size",))


@dataclass(frozen=True)
class Sent:
    """An input as a request describes it; `size` bytes of its tensor follow the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Request:
    """A request to infer.

    Attributes:
        id: The caller's own, which Triton gives back.
        parameters: Of those that are known.
        outputs: (name, parameters).
    """

    id: str
    parameters: Mapping[str, Any]
    inputs: tuple[Sent, ...]
    outputs: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def tensor_bytes(self) -> int:
        """How many follow the JSON."""
        return sum(sent.size for sent in self.inputs)

    @property
    def priority(self) -> int | None:
        """The class that is asked for: 1 to 3; None where none is."""
        asked = self.parameters.get("priority")
        return min(asked, 3) if asked else None

    @property
    def sequence(self) -> int | str | None:
        """The caller's own id of the sequence that it belongs to; None: of none."""
        return self.parameters.get("sequence_id") or None

    def written(self, timeout_us: int, priority: int | None, sequence: int | str | None = None) -> bytes:
        """Write it for Triton.

        Args:
            timeout_us: What is left; the caller's own holds where it is shorter.
            priority: None: Triton's default.
            sequence: In place of the caller's own id: `sequences.own`.

        Raises:
            Refusal: 400: a text has half of a character.
        """
        asked_us = self.parameters.get("timeout")
        parameters = {**self.parameters, "timeout": min(asked_us, timeout_us) if asked_us else timeout_us}
        parameters.pop("priority", None)
        if priority is not None:
            parameters["priority"] = priority
        if sequence is not None:
            parameters["sequence_id"] = sequence
        value: dict[str, Any] = {"id": self.id} if self.id else {}
        value["parameters"] = parameters
        value["inputs"] = [
            {
                "name": sent.name,
                "datatype": sent.datatype,
                "shape": sent.shape,
                "parameters": {"binary_data_size": sent.size},
            }
            for sent in self.inputs
        ]
        if self.outputs:
            value["outputs"] = [
                {"name": name, "parameters": more} if more else {"name": name} for name, more in self.outputs
            ]
        return strict.write(value)


def read(content: bytes) -> Request:
    """Read the JSON of a request.

    Raises:
        Refusal: 400.
    """
    given = _table(strict.parse(content), _REQUEST, "the request")
    inputs = tuple([_input(each) for each in _list(given.get("inputs"), "inputs")])
    outputs = tuple([_output(each) for each in _list(given.get("outputs", []), "outputs")])
    name = given.get("id", "")
    if not _is_text(name):
        raise refused(f"the id of a request may have {MOST_TEXT} characters, and no control characters")
    return Request(name, _known(given.get("parameters"), _OF_REQUEST, "the request"), inputs, outputs)


def _input(given: Any) -> Sent:
    if isinstance(given, dict) and "data" in given:
        raise refused("tensors belong in binary, not in JSON")
    table = _table(given, _INPUT, "an input")
    parameters = _table(table.get("parameters", {}), _SIZE, "the table of an input's parameters")
    size = parameters.get("binary_data_size")
    if not isinstance(size, int) or not _is_whole(size):
        raise refused("an input has no binary_data_size: tensors belong in binary, not in JSON")
    shape = _list(table.get("shape"), "a shape")
    if not all(type(each) is int for each in shape):
        raise refused("the shape of an input is not one that the model takes")
    return Sent(_name(table, "name"), _name(table, "datatype"), tuple(shape), size)


def _output(given: Any) -> tuple[str, Mapping[str, Any]]:
    table = _table(given, _OUTPUT, "an output")
    return _name(table, "name"), _known(table.get("parameters"), _OF_OUTPUT, "an output")


def _name(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise refused(f"the {key} of an input or output must be a text")
    return value


def _table(value: Any, known: frozenset[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused(f"{what} must be a JSON object")
    if not known.issuperset(value):
        raise refused(f"{what} has a key that is not known here")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise refused(f"{what} must be a JSON array")
    return value


def _known(value: Any, checks: Mapping[str, Callable[[Any], bool]], what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused(f"the parameters of {what} must be a JSON object")
    for name, given in value.items():
        if name not in checks or not checks[name](given):
            raise refused(f"{what} has a parameter that is not known here, or with a value that it cannot have")
    return value


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT and not _NO_TEXT.search(value)


_OF_REQUEST: Mapping[str, Callable[[Any], bool]] = {
    "sequence_id": lambda value: _is_whole(value) or _is_text(value),
    "sequence_start": _is_flag,
    "sequence_end": _is_flag,
    "priority": _is_whole,
    "timeout": _is_whole,  # microseconds
    "binary_data_output": _is_flag,
}
_OF_OUTPUT: Mapping[str, Callable[[Any], bool]] = {
    "binary_data": _is_flag,
    "classification": lambda value: _is_whole(value) and 1 <= value <= MOST_CLASSES,
}
