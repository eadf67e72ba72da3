"""Arrays are checked against the model before anything is sent, and the message says what would be right."""

import numpy as np
import pytest

from clients.core.metadata import ModelMetadata, TensorMetadata
from clients.core.tensors import concatenated, encoded_strings, split
from clients.errors import InvalidInputError, InvalidResponseError

PIXELS = TensorMetadata("pixels", "UINT8", (-1, 1, 28, 28))
MODEL = ModelMetadata("m", (PIXELS,), (TensorMetadata("scores", "FP32", (-1, 10)),), max_batch_size=4)
TEXT = ModelMetadata("t", (TensorMetadata("text", "BYTES", (-1, 1)),), (), max_batch_size=4)
PLAIN = ModelMetadata(
    "p", (TensorMetadata("a", "FP32", (2,)), TensorMetadata("b", "FP32", (3,))), (), optional=frozenset({"b"})
)
ROW = np.zeros((1, 1, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("metadata", "given", "message"),
    [
        (MODEL, {"pixel": ROW}, "it has no input 'pixel'\nNote: its inputs are pixels: UINT8 [-1, 1, 28, 28]"),
        (MODEL, {}, "the input 'pixels' is missing"),
        (MODEL, {"pixels": ROW.astype(np.float32)}, "pixels has the dtype float32, and must have uint8"),
        (MODEL, {"pixels": ROW.astype(np.float32)}, "Hint: pixels.astype('uint8')"),
        (MODEL, {"pixels": ROW[0]}, "Hint: add the batch dimension: pixels[None]"),
        (MODEL, {"pixels": np.zeros((1, 1, 28, 27), np.uint8)}, "[1, 1, 28, 27], which does not fit [-1, 1, 28, 28]"),
        (MODEL, {"pixels": ROW[:0]}, "pixels has no rows"),
        (MODEL, {"pixels": np.uint8(1)}, "has the shape []"),
        (MODEL, {"pixels": [[1, 2], [3]]}, "pixels cannot be made an array"),
        (TEXT, {"text": np.zeros((1, 1))}, "text has the dtype float64, and must have bytes"),
        (TEXT, {"text": [[None]]}, "None is neither bytes nor text"),
        (TEXT, {"text": [["\udcff"]]}, "surrogates not allowed"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(metadata: ModelMetadata, given, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInputError) as caught:
        metadata.validated(given)
    assert message in str(caught.value)


def test_strings_are_bytes_or_text_in_lists_or_arrays_and_stay_as_they_are() -> None:
    for given in ([[b"a\0"]], [["ä"]], np.array([["ä"]]), np.array([[b"a\0"]], dtype=np.object_)):
        array = TEXT.validated({"text": given})["text"]
        assert array.dtype == np.object_
        assert array.shape == (1, 1)
    assert TEXT.validated({"text": [[b"a\0"]]})["text"][0, 0] == b"a\0"


@pytest.mark.parametrize("given", [[[b"ab"], ["é"]], np.array([[b"ab"], ["é".encode()]]), [[np.bytes_(b"ab")], ["é"]]])
def test_strings_go_out_as_they_are(given: object) -> None:
    content = encoded_strings(TEXT.validated({"text": given})["text"])  # type: ignore[dict-item]
    assert content == b"\x02\0\0\0ab" + b"\x02\0\0\0\xc3\xa9"


def test_an_optional_input_may_be_left_away() -> None:
    assert list(PLAIN.validated({"a": np.zeros(2, np.float32)})) == ["a"]


KINDS = {"records": "BYTES", "a": "FP32", "b": "FP32"}
TABLE = ModelMetadata(
    "table",
    tuple(TensorMetadata(name, kind, (-1, 1)) for name, kind in KINDS.items()),
    (),
    max_batch_size=4,
    optional=frozenset(KINDS),
)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("records",), ""),
        (("a", "b"), ""),
        (("a",), "the input 'b' is missing"),
        ((), "the input 'a', 'b' is missing"),
        (("records", "b"), "records is given beside b: it takes the one or the others"),
        (("records", "a", "b"), "records is given beside a, b: it takes the one or the others"),
        (("records", "c"), "it has no input 'c'"),
    ],
)
def test_a_model_that_takes_records_takes_them_or_all_of_the_others(names: tuple[str, ...], told: str) -> None:
    given = {name: [[b"{}"]] if name == "records" else np.zeros((1, 1), np.float32) for name in names}
    if not told:
        assert TABLE.validated(given).keys() == {*names}
        return
    with pytest.raises(InvalidInputError) as caught:
        TABLE.validated(given)
    assert str(caught.value).startswith(f"table: {told}\n")


def test_the_inputs_of_a_batch_have_as_many_rows_as_each_other() -> None:
    two = ModelMetadata("m", (PIXELS, TensorMetadata("w", "FP32", (-1,))), (), max_batch_size=4)
    with pytest.raises(InvalidInputError, match="different batch sizes: pixels: 1, w: 2"):
        two.validated({"pixels": ROW, "w": np.zeros(2, np.float32)})


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
def test_a_large_batch_is_split_and_put_together_in_order(rows: int, sizes: list[int]) -> None:
    pixels = np.arange(rows, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 28, 28), np.uint8)
    chunks = split({"pixels": pixels}, 4)
    assert [len(chunk["pixels"]) for chunk in chunks] == sizes
    assert np.array_equal(concatenated(chunks, sizes)["pixels"], pixels)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": np.zeros((1, 3))}, r"a has the shape \[1, 3\] for 2 rows of a batch that was split"),
        ({"a": np.zeros(())}, r"a has the shape \[\] for 2 rows"),
        ({"a": np.zeros((2, 4))}, "do not fit together"),  # padded to the longest of its own
        ({}, "do not fit together"),
    ],
)
def test_no_row_of_a_split_batch_gets_the_answer_of_another(second: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidResponseError, match=message):
        concatenated([{"a": np.zeros((2, 3))}, second], [2, 2])


def test_what_is_no_batch_is_not_split() -> None:
    [chunk] = split({"a": np.zeros(2, np.float32)}, 0)
    assert chunk["a"].shape == (2,)


def test_a_limit_that_only_a_refusal_tells_is_learned() -> None:
    unknown = ModelMetadata("m", (PIXELS,), ())
    learned = unknown.with_limit_from("inference request batch-size must be <= 64 for 'm'")
    assert learned is not None
    assert learned.max_batch_size == 64
    assert unknown.with_limit_from("no image") is None
    assert MODEL.with_limit_from("inference request batch-size must be <= 64 for 'm'") is None
