"""Texts become the tokens that the network was trained with, or are refused one by one."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from contracts import layout
from export.release.python_step import InferenceRequest, Tensor, stand_in

STEP = layout.ROOT / "model_repository" / "minilm_preprocess"
STRANGE = {
    "empty": "",
    "blanks": " \t\n ",
    "NUL": "a\0b",
    "only NUL": "\0\0",
    "emoji": "I ♥ 🧑‍🚀 and 😀",
    "accents": "Ångström NAÏVE café",
    "Chinese": "中文 text",
    "right to left": "שלום עולם",
    "special": "[CLS] [PAD] [SEP] [MASK]",
    "one long word": "a" * 5_000,
    "long": "a cat and a dog; " * 500,
    "control": "".join(map(chr, range(1, 32))),
    "private": "\ue000\U0010ffff",
}


@pytest.fixture(scope="module")
def step() -> Iterator[tuple[Any, ModuleType]]:
    """The preprocessor, as its backend would make it, and its module `texts`."""
    modules: dict[str, ModuleType] = {"triton_python_backend_utils": stand_in()}
    before = {name: sys.modules.get(name) for name in ("triton_python_backend_utils", "texts", "step", "model")}
    sys.modules.update(modules)
    try:
        loaded = {}
        for name in ("texts", "step", "model"):
            spec = importlib.util.spec_from_file_location(name, STEP / "1" / f"{name}.py")
            assert spec is not None and spec.loader is not None
            loaded[name] = importlib.util.module_from_spec(spec)
            sys.modules[name] = loaded[name]
            spec.loader.exec_module(loaded[name])
        found = loaded["model"].TritonPythonModel()
        found.initialize({"model_config": json.dumps({}), "model_repository": str(STEP)})
        yield found, loaded["texts"]
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def ask(step: Any, *requests: list[bytes]) -> list[Any]:
    """The responses to requests that are in one dynamic batch."""
    given = [np.array(texts, np.object_).reshape(-1, 1) for texts in requests]
    return step.execute([InferenceRequest([Tensor("text", values)], []) for values in given])


def tensors(response: Any) -> dict[str, Any]:
    assert not response.has_error(), str(response.error())
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_serving_makes_the_tokens_that_training_made(step: tuple[Any, ModuleType], text: str) -> None:
    from training.families.minilm import tokens

    [response] = ask(step[0], [text.encode()])
    found, right = tensors(response), tokens.padded(tokens.encode([text]))
    for name, values in right.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == np.int32
    assert 2 <= found["input_ids"].shape[1] <= 256


def test_all_requests_of_a_dynamic_batch_are_as_long_as_the_longest_text(step: tuple[Any, ModuleType]) -> None:
    first, second = (tensors(found) for found in ask(step[0], [b"a", b"two words"], [b"word " * 1000]))
    assert first["input_ids"].shape == (2, 256) and second["input_ids"].shape == (1, 256)
    assert first["attention_mask"].sum(axis=1).tolist() == [3, 4] and second["attention_mask"].all()
    assert not first["input_ids"][first["attention_mask"] == 0].any()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"caf\xe9", "not UTF-8: unexpected end of data at byte 3"),
        (b"\xff\xfe\x00", "not UTF-8: invalid start byte at byte 0"),
        ("\ud83d".encode("utf-8", "surrogatepass"), "not UTF-8: invalid continuation byte at byte 0"),
        (b"a" * 65_537, "65,537 bytes, and the limit is 65,536"),
    ],
)
def test_a_bad_text_fails_its_request_and_no_other_of_the_batch(
    step: tuple[Any, ModuleType], bad: bytes, told: str
) -> None:
    before, refused, after = ask(step[0], [b"a cat"], [b"fine", bad], [b"a dog"])
    assert "text 1 of 2, from 0: " in str(refused.error()) and told in str(refused.error())
    assert refused.error().code == stand_in().TritonError.INVALID_ARG
    for neighbour, text in ((before, b"a cat"), (after, b"a dog")):
        [alone] = ask(step[0], [text])
        np.testing.assert_array_equal(tensors(neighbour)["input_ids"], tensors(alone)["input_ids"])
    [alone] = ask(step[0], [bad])
    assert told in str(alone.error()) and "from 0" not in str(alone.error())


def test_the_limits_are_those_of_the_configuration_and_of_the_spec(step: tuple[Any, ModuleType]) -> None:
    from contracts import model_config
    from training.families.minilm.spec import TOKENS

    config = model_config.read(STEP / "config.pbtxt")
    assert config.parameters["max_tokens"].string_value == str(TOKENS.max) == str(step[0].step.texts.limits.tokens)
    assert config.parameters["max_text_bytes"].string_value == str(step[1].Limits().text_bytes)


def test_the_tokenizer_travels_with_the_step() -> None:
    assert (STEP / "tokenizer.json").is_file()
    assert json.loads((STEP / "tokenizer.json").read_text())["model"]["type"] == "WordPiece"
