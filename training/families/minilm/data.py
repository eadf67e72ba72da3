"""WordNet's example sentences as queries, and its glosses as the documents to be found, in memory and tokenized.

A synset is in one split with its example and its gloss. Glosses of synsets without an example are documents that
nothing looks for, and so are the pages: glosses one after the other, as long as a text can be.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from contracts import layout
from contracts.samples import Group, Split
from training import batching
from training.families.minilm import tokens, wordnet
from training.families.minilm.tokens import Tokens
from training.families.minilm.wordnet import Synset

Part = Literal["train", "val", "test"]
_PARTS: tuple[Part, ...] = ("test", "val", "train")  # as they are drawn
Texts = dict[str, Tensor]  # input_ids and attention_mask, int32 [B, L]

_QUERIES = {"val": 500, "test": 1_000}  # the others train
_OTHERS = {"train": 250, "val": 250, "test": 1_000}  # documents that nothing looks for
_PAGES, _PAGE_GLOSSES = 32, 40
_SPLIT_SEED = 0
_BUCKET = 8  # tokens: texts of a group are padded to the longest, as a server's batches are
_EVALUATED = 128  # texts a step of validation or test


@dataclass(frozen=True)
class Corpus:
    """The texts of a split."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]  # first that of each query, in their order, then those that nothing looks for


class DataModule(pl.LightningDataModule):
    """Pairs of a query and its document to train, two splits of both and of other documents to judge.

    Args:
        root: Where the data lies or is put; None for the project's own place.
        batch_size: Pairs a step; each query is held against the documents of all.
        pairs: How many to train with; None for all.
    """

    def __init__(self, root: Path | None = None, batch_size: int = 32, pairs: int | None = None) -> None:
        super().__init__()
        self.root, self.batch_size, self.pairs = root or layout.data(), batch_size, pairs
        self.save_hyperparameters("batch_size", "pairs")
        self._corpora: dict[Part, Corpus] = {}

    @property
    def fingerprint(self) -> str:
        """A digest of the data, of how it is split, and of what makes tokens of it."""
        digest = hashlib.sha256(tokens.path().read_bytes())
        for name in _PARTS:
            digest.update(repr((name, self._texts(name), _targets(self.corpus(name)).tolist(), _BUCKET)).encode())
        return digest.hexdigest()

    def prepare_data(self) -> None:
        """Fetch the data if it is not there; Lightning calls this in one process only.

        Raises:
            DataError: it cannot be had.
        """
        wordnet.locate(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the files and split them, whatever the stage; a second call does nothing."""
        if not self._corpora:
            self._corpora = split_up(wordnet.read(wordnet.locate(self.root)))

    def corpus(self, name: Part) -> Corpus:
        """Return the texts of "train", "val" or "test"."""
        self.setup()
        return self._corpora[name]

    def split(self, name: Part) -> Split:
        """Return the tokens of queries and documents, and of each what it belongs with and whether it is a query.

        Groups are of about the same length, shortest first: {"input_ids", "attention_mask"}, int32 [n, L]. Targets are
        int64 [n, 2].
        """
        texts, targets = tokens.encode(self._texts(name)), _targets(self.corpus(name))
        groups = (Group(tokens.padded([texts[row] for row in rows]), targets[rows]) for rows in _by_length(texts))
        return Split(tuple(groups))

    def texts(self, name: Part) -> list[str]:
        """Return the texts of a split, in its order."""
        texts = self._texts(name)
        return [texts[row] for rows in _by_length(tokens.encode(texts)) for row in rows]

    def train_dataloader(self) -> DataLoader[tuple[Texts, Texts]]:
        """Shuffle the pairs anew each epoch; the last, smaller batch is left out."""
        corpus = self.corpus("train")  # its documents begin with those of its queries
        queries, documents = (tokens.encode(texts[: self.pairs]) for texts in (corpus.queries, corpus.documents))
        pairs = _Pairs(queries, documents[: len(queries)])
        rows = batching.shuffled(len(pairs), self.batch_size, self.trainer)
        return batching.loader(pairs, rows)

    def val_dataloader(self) -> DataLoader[tuple[Texts, Tensor]]:
        """Return the validation texts in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[tuple[Texts, Tensor]]:
        """Return the test texts in order."""
        return self._loader("test")

    def _texts(self, name: Part) -> list[str]:
        """Return each query before its own document, so that the first of a split are of both; then the others."""
        corpus = self.corpus(name)
        count = len(corpus.queries)
        pairs = zip(corpus.queries, corpus.documents[:count], strict=True)
        return [*(text for pair in pairs for text in pair), *corpus.documents[count:]]

    def _loader(self, name: Part) -> DataLoader[tuple[Texts, Tensor]]:
        groups = self.split(name).groups
        batches = []
        for place, group in enumerate(groups):
            rows = [[place, row] for row in range(len(group))]
            batches += [torch.tensor(rows[at : at + _EVALUATED]) for at in range(0, len(rows), _EVALUATED)]
        return batching.loader(_Judged(groups), batching.given(batches))


class _Pairs(Dataset[tuple[Texts, Texts]]):
    """Queries and documents, of which a batch is padded to its own longest."""

    def __init__(self, queries: Sequence[Tokens], documents: Sequence[Tokens]) -> None:
        self._queries, self._documents = queries, documents

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, rows: Tensor) -> tuple[Texts, Texts]:
        """Return the pairs of `rows`, int64 [n]."""
        queries, documents = ([texts[row] for row in rows] for texts in (self._queries, self._documents))
        return _tensors(tokens.padded(queries)), _tensors(tokens.padded(documents))


class _Judged(Dataset[tuple[Texts, Tensor]]):
    """The groups of a split, of which a batch never has texts of two."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups

    def __getitem__(self, rows: Tensor) -> tuple[Texts, Tensor]:
        """Return the texts of `rows`, int64 [n, 2]: which group, and which row of it; one of several may get none."""
        place = int(rows[0, 0]) if len(rows) else 0
        part = self._groups[place].take(rows[:, 1].numpy())
        assert part.targets is not None  # every text has its own
        return _tensors(part.inputs), torch.from_numpy(part.targets)


def split_up(synsets: Sequence[Synset]) -> dict[Part, Corpus]:
    """Put synsets into the three splits, drawn without regard to what they mean."""
    chance = np.random.default_rng(_SPLIT_SEED)
    pairs = [(synset.example, synset.gloss) for synset in synsets if synset.example is not None]
    others = [synset.gloss for synset in synsets if synset.example is None]
    drawn, drawn_others = iter(chance.permutation(len(pairs))), iter(chance.permutation(len(others)))
    found: dict[Part, Corpus] = {}
    for name in _PARTS:
        count = _QUERIES.get(name, len(pairs))
        chosen = [pairs[i] for _, i in zip(range(count), drawn, strict=False)]
        alone = [others[i] for _, i in zip(range(_OTHERS[name]), drawn_others, strict=False)]
        pages = _pages([gloss for _, gloss in chosen])
        found[name] = Corpus(tuple(q for q, _ in chosen), (*(gloss for _, gloss in chosen), *alone, *pages))
    return found


def _pages(glosses: Sequence[str]) -> Iterator[str]:
    """Yield long texts: so many glosses each, in the order they have."""
    for page in range(min(_PAGES, len(glosses) // _PAGE_GLOSSES)):
        yield "; ".join(glosses[page * _PAGE_GLOSSES : (page + 1) * _PAGE_GLOSSES])


def _targets(corpus: Corpus) -> NDArray[np.int64]:
    """Return of each text what it belongs with and whether it is a query, as `DataModule._texts` has them."""
    count = len(corpus.queries)
    pairs = [(index, is_query) for index in range(count) for is_query in (1, 0)]
    return np.array([*pairs, *((index, 0) for index in range(count, len(corpus.documents)))], np.int64)


def _by_length(texts: Sequence[Tokens]) -> list[NDArray[np.intp]]:
    """Return the rows of each group: texts that are of about the same length."""
    buckets = np.array([-(-len(text) // _BUCKET) for text in texts])
    return [np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)]


def _tensors(arrays: Mapping[str, NDArray[np.int32]]) -> Texts:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}
