"""Requests that are made to hurt, by name: each is one that a client would send, but for one thing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tritonclient.grpc import service_pb2

from tests.deploy.echoes import BINARY, LENGTH, PIXELS, WORDS, Echo

Message = Any  # service_pb2.ModelInferRequest: its module is made when it is imported


@dataclass(frozen=True)
class Post:
    """What echoes.post is given."""

    asked: Echo = PIXELS
    header: bytes | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _input(asked: Echo = PIXELS, without: str = "", **changed: Any) -> Post:
    given = {key: value for key, value in {**asked.input, **changed}.items() if key != without}
    return Post(asked, asked.header(inputs=[given]))


def _sized(size: object) -> Post:
    return _input(parameters={"binary_data_size": size})


def _text(asked: Echo, old: str, new: str) -> Post:
    text = asked.header().decode()
    assert text.count(old) == 1
    return Post(asked, text.replace(old, new).encode())


def _data(shape: list[int], **more: Any) -> Post:
    """A tensor in the JSON, which says how long it is."""
    header = PIXELS.header(inputs=[{"name": "IN", "datatype": "UINT8", "shape": shape, "data": [1], **more}])
    return Post(PIXELS, header, body=header)


def _claimed(length: object, **more: str) -> Post:
    return Post(PIXELS, headers={LENGTH: str(length), **more})


_REGION = {"shared_memory_region": "another's", "shared_memory_byte_size": 8}
_EMPTY = Echo("words", (2**32, 1), b"", "BYTES")

HTTP: dict[str, Post] = {
    # Shapes.
    "a product that overflows": _data([1, 1, 28, 2**60]),
    "2^45 elements": _data([2**45, 1, 2, 2]),
    "2.1 GB": _data([76_695_844, 1, 28, 28]),
    "an overflow in binary": _input(shape=[2**62, 1, 2, 2], parameters={"binary_data_size": 0}),
    "a batch of 2^32 strings": Post(_EMPTY),
    "a batch of 2^32 + 1 strings": Post(Echo("words", (2**32 + 1, 1), WORDS.content[:7], "BYTES")),
    "a batch of 2^32 + 2": _input(shape=[2**32 + 2, 1, 2, 2]),
    "a batch of 2^64 + 2": _input(shape=[2**64 + 2, 1, 2, 2]),
    "a batch above the maximum": Post(Echo("pixels", (9, 1, 2, 2), bytes(36), "UINT8")),
    "no rows": Post(Echo("pixels", (0, 1, 2, 2), b"", "UINT8")),
    "a negative batch": _input(shape=[-2, 1, 2, 2]),
    "two negative dimensions": _input(shape=[-2, -1, 2, 2]),
    "a dimension above the model's": _input(shape=[1, 2, 2, 2]),
    "no shape": _input(without="shape"),
    "an empty shape": _input(shape=[]),
    "a shape of 1,000 dimensions": _input(shape=[1] * 1000),
    "a shape with a text": _input(shape=["2", 1, 2, 2]),
    "a shape with a fraction": _text(PIXELS, "[2, 1, 2, 2]", "[2.0, 1, 2, 2]"),
    "a shape with an exponent": _text(PIXELS, "[2, 1, 2, 2]", "[2e0, 1, 2, 2]"),
    "a shape that is no list": _input(shape=8),
    "a zero before a number": _text(PIXELS, "[2, 1, 2, 2]", "[02, 1, 2, 2]"),
    # Where the bytes are.
    "data beside binary": _input(data=[1]),
    "data with a header length": Post(PIXELS, _data([2, 1, 2, 2], parameters={"binary_data_size": 8}).header),
    "no binary_data_size": _input(without="parameters"),
    "binary_data_size of 0": _sized(0),
    "a negative binary_data_size": _sized(-8),
    "binary_data_size of 2^64": _sized(2**64 + 8),
    "binary_data_size as a text": _sized("8"),
    "binary_data_size above the body": _sized(9),
    "bytes that no input has": Post(PIXELS, body=PIXELS.header() + PIXELS.content + b"more"),
    "a string longer than the rest": Post(Echo("words", (2, 1), b"\xff\xff\xff\xff" + bytes(7), "BYTES")),
    "fewer strings than the shape says": Post(Echo("words", (3, 1), WORDS.content, "BYTES")),
    # JSON that two parsers read as two things.
    "inputs twice": _text(PIXELS, '{"inputs": [', '{"inputs": [], "inputs": ['),
    "inputs twice, once escaped": _text(PIXELS, '{"inputs": [', '{"in\\u0070uts": [], "inputs": ['),
    "a shape twice": _text(PIXELS, '"shape"', '"shape": [1], "shape"'),
    "a binary_data_size twice": _text(PIXELS, '"binary_data_size"', '"binary_data_size": 1, "binary_data_size"'),
    "a key that is not known": Post(PIXELS, PIXELS.header(more=1)),
    "a key of the prototype": Post(PIXELS, PIXELS.header(__proto__={"inputs": []})),
    "no JSON": Post(PIXELS, b"\0\1\2"),
    "a list": Post(PIXELS, b"[]"),
    "brackets": Post(PIXELS, b"[" * 4000 + b"]" * 4000),
    "a comment": _text(PIXELS, '{"inputs"', '{/**/"inputs"'),
    "a comma too many": _text(PIXELS, '{"inputs"', '{,"inputs"'),
    "text after the JSON": Post(PIXELS, PIXELS.header() + b"{}"),
    "not a number": _text(PIXELS, '"binary_data_size": 8', '"binary_data_size": NaN'),
    "a line end in a text": Post(PIXELS, PIXELS.header(id="x").replace(b'"x"', b'"x\n"')),
    "an escape that is none": Post(PIXELS, PIXELS.header(id="x").replace(b'"x"', b'"\\x41"')),
    "half a character": Post(PIXELS, PIXELS.header(id="x").replace(b'"x"', b'"\\ud800"')),
    "a space that is none": Post(PIXELS, PIXELS.header().replace(b" ", b"\xc2\xa0", 1)),
    "no UTF-8": Post(PIXELS, PIXELS.header(id="x").replace(b"x", b"\xff")),
    "a byte-order mark": Post(PIXELS, b"\xef\xbb\xbf" + PIXELS.header()),
    "a zero in a name": _input(name="IN\0"),
    "a control character in the id": Post(PIXELS, PIXELS.header(id="\x1b[2J")),
    "a line end in the id": Post(PIXELS, PIXELS.header(id="x\n")),
    "an id of 9,000 characters": Post(PIXELS, PIXELS.header(id="x" * 9000)),
    # Names and types.
    "an input twice": Post(replace(PIXELS, content=PIXELS.content * 2), PIXELS.header(inputs=[PIXELS.input] * 2)),
    "another input": _input(name="OTHER"),
    "no input": Post(PIXELS, PIXELS.header(inputs=[]), PIXELS.header(inputs=[])),
    "an output twice": Post(PIXELS, PIXELS.header(outputs=[BINARY] * 2)),
    "another output": Post(PIXELS, PIXELS.header(outputs=[{"name": "OTHER"}])),
    "a datatype that is none": _input(datatype="UINT9"),
    "another datatype": _input(datatype="BYTES"),
    "no datatype": _input(without="datatype"),
    # Parameters.
    "an input in shared memory": _input(parameters=_REGION),
    "an offset that wraps around": _input(parameters={**_REGION, "shared_memory_offset": 2**64 - 8}),
    "an output in shared memory": Post(PIXELS, PIXELS.header(outputs=[{"name": "OUT", "parameters": _REGION}])),
    "a parameter of the request": Post(PIXELS, PIXELS.header(parameters={"shared_memory_region": "another's"})),
    "2^31 classes": Post(PIXELS, PIXELS.header(outputs=[{"name": "OUT", "parameters": {"classification": 2**31}}])),
    "classes of strings": Post(WORDS, WORDS.header(outputs=[{"name": "OUT", "parameters": {"classification": 1}}])),
    "a negative priority": Post(PIXELS, PIXELS.header(parameters={"priority": -1})),
    # The length of the JSON.
    "no header length": Post(PIXELS, headers={LENGTH: ""}),
    "a header length of 0": _claimed(0),
    "a header length above the body": _claimed(9000),
    "a negative header length": _claimed(-1),
    "a header length of 2^32": _claimed(2**32 + len(PIXELS.header())),
    "a header length in hexadecimal": _claimed("0x10"),
    "two header lengths in one": _claimed("100, 140"),
    # Encodings.
    "gzip": Post(PIXELS, headers={"Content-Encoding": "gzip"}),
    "deflate": Post(PIXELS, headers={"Content-Encoding": "deflate"}),
    "identity, then gzip": Post(PIXELS, headers={"Content-Encoding": "identity, gzip"}),
}


def _message(change: Callable[[Message], object], asked: Echo = PIXELS) -> bytes:
    message = asked.message()
    change(message)
    return bytes(message.SerializeToString())


def _twice(tag: int, value: bytes) -> bytes:
    """The request with another field at its end, which a parser takes in place of the first or merges with it."""
    return _message(lambda message: None) + bytes((tag, len(value))) + value


def _shaped(*shape: int, asked: Echo = PIXELS, content: bytes | None = None) -> bytes:
    def change(message: Message) -> None:
        message.inputs[0].shape[:] = shape
        if content is not None:
            message.raw_input_contents[:] = [content]

    return _message(change, asked)


def _parameter(text: str) -> Any:
    return service_pb2.InferParameter(string_param=text)


GRPC: dict[str, bytes] = {
    "a product that overflows": _shaped(1, 1, 28, 2**60),
    "2^45 elements": _shaped(2**45, 1, 2, 2),
    "a batch of 2^32 strings": _shaped(2**32, 1, asked=WORDS, content=b""),
    "a batch of 2^32 + 1 strings": _shaped(2**32 + 1, 1, asked=WORDS, content=WORDS.content[:7]),
    "a batch of 2^32 + 2": _shaped(2**32 + 2, 1, 2, 2),
    "a batch above the maximum": _shaped(9, 1, 2, 2, content=bytes(36)),
    "no rows": _shaped(0, 1, 2, 2, content=b""),
    "a negative batch": _shaped(-2, 1, 2, 2),
    "an empty shape": _shaped(),
    "a shape of 1,000 dimensions": _shaped(*[1] * 1000),
    "fewer bytes than the shape says": _shaped(2, 1, 2, 2, content=b"1234567"),
    "a string longer than the rest": _shaped(2, 1, asked=WORDS, content=b"\xff\xff\xff\xff" + bytes(7)),
    "contents in place of raw ones": _message(lambda message: message.inputs[0].contents.uint_contents.extend([1] * 8)),
    "no contents": _message(lambda message: message.ClearField("raw_input_contents")),
    "contents that no input has": _message(lambda message: message.raw_input_contents.append(b"x")),
    "an input twice": _message(lambda m: (m.inputs.append(m.inputs[0]), m.raw_input_contents.append(PIXELS.content))),
    "a datatype that is none": _message(lambda message: setattr(message.inputs[0], "datatype", "UINT9")),
    "another datatype": _message(lambda message: setattr(message.inputs[0], "datatype", "BYTES")),
    "no input": _message(lambda message: (message.ClearField("inputs"), message.ClearField("raw_input_contents"))),
    "another input": _message(lambda message: setattr(message.inputs[0], "name", "OTHER")),
    "a model that is a path": _message(lambda message: setattr(message, "model_name", "../pixels")),
    "a line end in the model's name": _message(lambda message: setattr(message, "model_name", "pixels\n")),
    "a line end in the version": _message(lambda message: setattr(message, "model_version", "1\n")),
    "a line end in the id": _message(lambda message: setattr(message, "id", "x\n")),
    "a version that is none": _message(lambda message: setattr(message, "model_version", "-1")),
    "an input in shared memory": _message(
        lambda message: message.inputs[0].parameters["shared_memory_region"].MergeFrom(_parameter("another's"))
    ),
    "an output in shared memory": _message(
        lambda m: m.outputs.add(name="OUT").parameters["shared_memory_region"].MergeFrom(_parameter("another's"))
    ),
    "a parameter that is not known": _message(
        lambda m: m.parameters["shared_memory_region"].MergeFrom(_parameter("x"))
    ),
    "classes of strings": _message(
        lambda message: (
            message.outputs.add(name="OUT")
            .parameters["classification"]
            .MergeFrom(service_pb2.InferParameter(int64_param=1))
        ),
        WORDS,
    ),
    "a control character in the id": _message(lambda message: setattr(message, "id", "\x1b[2J")),
    "the model's name twice": _twice(0x0A, b"words"),
    "an input more, later": _twice(0x2A, b"\x0a\x02IN"),
    "a million inputs of nothing": _message(lambda message: None) + b"\x2a\x00" * 1_000_000,
    "a million numbers in a shape": _shaped(*[1] * 1_000_000),
    "a field that is not known": _twice(0x7A, b"x"),
    "a number in place of a name": _message(lambda message: None) + b"\x08\x01",
    "a number that does not end": _message(lambda message: None) + b"\x08" + b"\xff" * 11,
    "a length above the message": _message(lambda message: None) + b"\x3a\xff\xff\xff\xff\x0f",
    "a group": _message(lambda message: None) + b"\x0b\x0c",
    "no protocol buffer": bytes(range(256)),
    "nothing": b"",
}


def header_twice(asked: Echo = PIXELS) -> bytes:
    """All of an HTTP request with two header lengths."""
    header = asked.header()
    lengths = f"{LENGTH}: {len(header)}\r\n{LENGTH}: 2\r\n"
    return raw(asked.path, header + asked.content, lengths)


def raw(path: str, body: bytes, headers: str = "", *, version: str = "1.1", length: object = None) -> bytes:
    """All of an HTTP request, as it is on the wire."""
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {size}\r\n{headers}\r\n"
    return head.encode() + body
