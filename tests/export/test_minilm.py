"""The sentence encoder served: a small one of random weights, from its module to Triton's answers, held against BERT.

It is two layers of the real one's width, with the real tokenizer, steps and configurations.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from clients import Client, ClientError, InvalidInputError
from contracts import layout
from deploy.triton import environment
from tests.command_lines import run_here
from tests.deploy.tiny_models import Server, serving
from tests.training import bert

pytestmark = pytest.mark.heavy
MODELS = ("minilm", "minilm_preprocess", "minilm_encoder")
TEXTS = [
    "",
    "a cat",
    "a small cat sat there",
    "NUL \0 in it",
    "I ♥ 🧑‍🚀",
    "中文",
    "[PAD] [SEP]",
    "a cat and a dog; " * 300,
]


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[np.float32]]:
    return bert.random_weights(layers=2, wider=96)


@pytest.fixture(scope="module")
def triton(weights: dict[str, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Triton that serves it, by the configurations of the repository."""
    from export.source.pytorch import graph_from_module
    from training.families.minilm import weights as family_weights
    from training.families.minilm.model import Module
    from training.families.minilm.spec import SPEC, TOKENS

    root = tmp_path_factory.mktemp("minilm")
    save_file(weights, root / "model.safetensors")
    module = Module(layers=2, wider=96, pretrained=False)
    module.network.load_state_dict(dict(family_weights.read(root / "model.safetensors", TOKENS.max)))
    for model in MODELS:
        shutil.copytree(
            layout.ROOT / "model_repository" / model,
            root / "repository" / model,
            ignore=shutil.ignore_patterns("__pycache__", "manifest.json", "*.onnx", "release"),
        )
    version = root / "repository" / "minilm_encoder" / "1"
    version.mkdir(exist_ok=True)
    graph_from_module(module.eval().served(), SPEC, version / "model.onnx")
    installed = environment.pip_installed(print)
    with serving(root / "repository", installed, "--model-config-name=cpu") as server:
        assert server.serves("minilm"), server.log.read_text()[-2000:]
        yield server


@pytest.fixture(scope="module")
def client(triton: Server) -> Iterator[Client]:
    with closing(Client(f"grpc://{triton.address}", timeout_s=60)) as found:
        yield found


@pytest.fixture(scope="module")
def right(weights: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """What BERT gives for each of the texts, alone."""
    from training.families.minilm import tokens

    return np.stack([bert.embed(weights, text) for text in tokens.encode(TEXTS)])


def test_texts_of_every_length_in_one_batch_get_berts_vectors(client: Client, right: NDArray[np.float64]) -> None:
    found = client.embed(TEXTS, model="minilm")
    assert found.dtype == np.float32 and found.shape == right.shape
    assert (found * right).sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_clients_that_ask_at_once_get_each_its_own_and_a_bad_text_harms_none(
    client: Client, right: NDArray[np.float64]
) -> None:
    """Requests of one text, and of many, of unequal lengths, between others that are refused."""

    def ask(index: int) -> NDArray[np.float32] | ClientError:
        try:
            if index % 3 == 2:
                raw = b"\xff\xfe" if index % 2 else b"a" * 100_000
                client.infer("minilm", {"text": np.array([[raw]], np.object_)})
            return client.embed([TEXTS[index % len(TEXTS)]], model="minilm")
        except InvalidInputError as error:
            return error

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(96)))
    for index, answer in enumerate(answers):
        if index % 3 == 2:
            assert isinstance(answer, InvalidInputError)
            assert ("not UTF-8" if index % 2 else "the limit is 65,536") in str(answer)
        else:
            assert not isinstance(answer, ClientError), answer
            assert float((answer[0] * right[index % len(TEXTS)]).sum()) > 0.99999


def test_more_texts_than_a_batch_takes_are_split(client: Client, right: NDArray[np.float64]) -> None:
    found = client.embed(TEXTS * 9, model="minilm")
    assert (found * np.tile(right, (9, 1))).sum(axis=1).min() > 0.99999


def test_what_is_no_text_is_refused_before_it_is_sent(client: Client) -> None:
    for texts, told in (
        ("a text", "a sequence of str"),
        ([b"bytes"], "one is bytes"),
        ([], "no text"),
        (["\ud83d"], "is no Unicode"),
    ):
        with pytest.raises(InvalidInputError, match=told):
            client.embed(texts, model="minilm")  # type: ignore[arg-type]


def test_the_command_line_embeds_and_searches(triton: Server, tmp_path: Path) -> None:
    def embed(*arguments: str) -> str:
        given = ["clients", "embed", *arguments, "--server", f"grpc://{triton.address}"]
        done = run_here(given, dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert done.stderr.rstrip().endswith("answered by minilm"), "the one model that embeds was found"
        return done.stdout

    (tmp_path / "notes.txt").write_text("a dog\n\na small cat sat there\r\nnothing\n")
    searched = embed("a small cat sat there", "--among", str(tmp_path / "notes.txt"), "--top", "2").splitlines()
    assert searched[0] == "a small cat sat there" and searched[1] == "  1.000  a small cat sat there"
    assert len(searched) == 3
    [line] = embed("a cat", "--json").splitlines()
    told = json.loads(line)
    assert told["text"] == "a cat" and len(told["embedding"]) == 384
    embed("--file", str(tmp_path / "notes.txt"), "--save", str(tmp_path / "vectors"))
    assert np.load(tmp_path / "vectors").shape == (3, 384)
