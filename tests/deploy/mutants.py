"""Requests that are almost right, made up from a seed: valid ones, changed in their structure or in their bytes."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from tests.deploy.echoes import LENGTH, ROWS, Echo, strings

_NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 9, -1, -2, 255, 256, 65_536, 76_695_844, 10**9),
    *(
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
        2**32 + 1,
        2**32 + 2,
        2**45,
        2**53 + 1,
        2**60,
        2**62,
        2**63 - 1,
        2**63,
        2**64,
    ),
)
_WORDS = (
    "",
    "IN",
    "OUT",
    "pixels",
    "words",
    "UINT8",
    "BYTES",
    "INT64",
    "FP16",
    "x",
    "\0",
    "IN\0",
    "é",
    "../..",
    "1",
    "8",
)
_KEYS = (
    *("id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data", "binary_data_size", "binary_data"),
    *(
        "shared_memory_region",
        "shared_memory_byte_size",
        "shared_memory_offset",
        "classification",
        "priority",
        "timeout",
    ),
    *("sequence_id", "sequence_start", "binary_data_output", "contents", "__proto__", "constructor"),
)
_HEADERS = (
    *({"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}, {"Content-Encoding": "identity"}),
    *({"Transfer-Encoding": "identity"}, {"Expect": "200-ok"}, {"admin-key": "x"}, {"TE": "trailers"}),
)


@dataclass(frozen=True)
class Mutant:
    """A request as it is sent, and whether anything was changed in it."""

    model: str
    header: bytes  # JSON; empty over gRPC
    body: bytes  # over HTTP with the JSON, over gRPC the message
    headers: dict[str, str]
    is_valid: bool

    @property
    def wants_classes(self) -> bool:
        """Whether the answer may be classes, not what was sent. JSON may spell a key in many ways."""
        return b"classification" in (json.dumps(json.loads(self.header)).encode() if self.headers else self.body)

    def read(self) -> Echo | None:
        """What a reader of ours takes it for, who knows nothing of the front: None is nothing that has one tensor."""
        try:
            return _read_json(self) if self.headers else _read_message(self.body)
        except (ValueError, TypeError, KeyError, DecodeError, RecursionError):
            return None


def over_http(chance: random.Random) -> Mutant:
    echo = _valid(chance)
    request = json.loads(echo.header())
    valid, text, headers = chance.random() < 0.2, b"", {}
    if not valid and chance.random() < 0.8:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            request = _mutated(chance, request)
    text = json.dumps(request).encode()
    if not valid and chance.random() < 0.3:
        text = chance.choice((_doubled, _bytes_mutated))(chance, text)
    content = echo.content
    if not valid and chance.random() < 0.1:
        content = _bytes_mutated(chance, content)
    length: object = len(text)
    if not valid and chance.random() < 0.1:
        length = chance.choice((*_NUMBERS, "", "x", "1e1", f"{length},{length}", f"+{length}", f"0{length}"))
    if not valid and chance.random() < 0.05:
        headers = chance.choice(_HEADERS)
    return Mutant(echo.model, text, text + content, {LENGTH: str(length), **headers}, valid)


def over_grpc(chance: random.Random) -> Mutant:
    echo = _valid(chance)
    message = echo.message()
    valid = chance.random() < 0.2
    if not valid and chance.random() < 0.7:
        for _ in range(chance.choice((1, 1, 2))):
            chance.choice(_CHANGES)(chance, message)
    content = bytes(message.SerializeToString())
    if not valid and chance.random() < 0.5:
        content = _bytes_mutated(chance, content)
    return Mutant(echo.model, b"", content, {}, valid)


def _valid(chance: random.Random) -> Echo:
    rows = chance.randint(1, ROWS)
    if chance.random() < 0.5:
        return Echo("pixels", (rows, 1, 2, 2), chance.randbytes(4 * rows), "UINT8")
    columns = chance.randint(1, 3)
    content = strings(*(chance.choice((b"", b"a", "größer".encode())) for _ in range(rows * columns)))
    return Echo("words", (rows, columns), content, "BYTES")


def _mutated(chance: random.Random, value: Any) -> Any:
    """The JSON value with one place in it changed: another value, one more, one less, one in a list."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return _anything(chance)
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place, changed = chance.choice(places), value.copy()
    match chance.randrange(8):
        case 0:
            del changed[place]
        case 1 if isinstance(changed, dict):
            changed[chance.choice(_KEYS)] = _anything(chance)
        case 1 | 2 if isinstance(changed, list):
            changed.insert(place, chance.choice((value[place], _anything(chance))))
        case _:
            changed[place] = _mutated(chance, value[place])
    return changed


def _anything(chance: random.Random) -> Any:
    simple: tuple[Callable[[], Any], ...] = (
        lambda: chance.choice(_NUMBERS),
        lambda: chance.choice(_NUMBERS),
        lambda: chance.choice(_WORDS),
        lambda: chance.choice((True, False, None, 0.5, 1e308, 2.0)),
        lambda: [chance.choice(_NUMBERS) for _ in range(chance.randint(0, 5))],
        lambda: {chance.choice(_KEYS): chance.choice((*_NUMBERS, *_WORDS)) for _ in range(chance.randint(0, 3))},
    )
    return chance.choice(simple)()


def _doubled(chance: random.Random, text: bytes) -> bytes:
    """The JSON with a key and a value more, in front of another, which may be the same."""
    at = [i for i, byte in enumerate(text) if byte == ord("{")]
    if not at:
        return text
    where = chance.choice(at) + 1
    key = json.dumps(chance.choice(_KEYS))
    if chance.random() < 0.3:
        key = key.replace("a", "\\u0061")
    return text[:where] + f"{key}: {json.dumps(_anything(chance))}, ".encode() + text[where:]


def _bytes_mutated(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randint(0, len(changed))
        match chance.randrange(5):
            case 0:
                del changed[at : at + chance.choice((1, 1, 4))]
            case 1:
                changed[at:at] = chance.randbytes(chance.choice((1, 2, 10)))
            case 2 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 3:
                changed[at:at] = changed[at : at + chance.randint(1, 20)]
            case _:
                changed += chance.choice(
                    (b"\x80", b"\xff" * 10, b"\x0a\x05words", b"\x3a\x00", b"}", b"\x2a\x02\x0a\x00")
                )
    return bytes(changed)


def _shape(chance: random.Random, message: Any) -> None:
    if message.inputs:
        shape = list(message.inputs[0].shape) or [1]
        shape[chance.randrange(len(shape))] = max(-(2**63), min(2**63 - 1, chance.choice(_NUMBERS)))
        message.inputs[0].shape[:] = shape


def _parameter(chance: random.Random, message: Any) -> None:
    tensors = [*message.inputs, *message.outputs, message]
    parameter = chance.choice(tensors).parameters[chance.choice(_KEYS)]
    match chance.randrange(5):
        case 0:
            parameter.bool_param = chance.random() < 0.5
        case 1:
            parameter.string_param = chance.choice(_WORDS)
        case 2:
            parameter.double_param = 0.5
        case 3:
            parameter.uint64_param = chance.choice((0, 1, 9, 2**63, 2**64 - 1))
        case _:
            parameter.int64_param = chance.choice((0, 1, 9, -1, 2**31, 2**63 - 1, -(2**63)))


def _text(chance: random.Random, message: Any) -> None:
    target = chance.choice([*message.inputs, *message.outputs, message])
    names = [field.name for field in target.DESCRIPTOR.fields if field.type == field.TYPE_STRING]
    setattr(target, chance.choice(names), chance.choice(_WORDS))


def _contents(chance: random.Random, message: Any) -> None:
    if message.inputs and chance.random() < 0.5:
        message.inputs[0].contents.uint_contents.extend([1] * chance.randint(0, 9))
    elif message.raw_input_contents and chance.random() < 0.5:
        del message.raw_input_contents[0]
    else:
        message.raw_input_contents.append(chance.randbytes(chance.randint(0, 9)))


def _tensor(chance: random.Random, message: Any) -> None:
    if chance.random() < 0.5:
        message.outputs.add(name=chance.choice(_WORDS))
    else:
        message.inputs.add(name=chance.choice(_WORDS), datatype=chance.choice(_WORDS), shape=[1])


_CHANGES = (_shape, _shape, _parameter, _text, _contents, _tensor)


def _read_json(mutant: Mutant) -> Echo:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    length = int(mutant.headers[LENGTH])
    request = json.loads(mutant.body[:length], object_pairs_hook=once)
    [tensor] = request["inputs"]
    content = mutant.body[length:]
    return Echo(mutant.model, tuple(tensor["shape"]), content, tensor["datatype"])


def _read_message(content: bytes) -> Echo:
    message = service_pb2.ModelInferRequest.FromString(content)
    [tensor], [raw] = message.inputs, message.raw_input_contents
    return Echo(message.model_name, tuple(tensor.shape), raw, tensor.datatype)
