"""An epoch's batches: each sample once, in an order that follows from the seed, shared among processes."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler, SequentialSampler

from training import batching
from training.errors import DataError, TrainingError


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Be one of several processes; what is gathered among real ones, test_two_processes.py shows."""

    def be(process: int, processes: int = 2) -> None:
        monkeypatch.setattr(batching, "process", lambda: process)
        monkeypatch.setattr(batching, "processes", lambda: processes)

    yield be


def epoch(batches: batching.Batches, number: int = 0) -> list[list[int]]:
    batches.set_epoch(number)
    return [rows.tolist() for rows in batches]


def test_an_epoch_has_each_sample_once_but_for_a_smaller_last_batch() -> None:
    found = epoch(batching.shuffled(10, 4, None))
    assert [len(rows) for rows in found] == [4, 4]
    assert len({row for rows in found for row in rows}) == 8


def test_a_smaller_last_batch_is_not_left_out_where_it_is_the_only_one() -> None:
    [rows] = epoch(batching.shuffled(3, 4, None))
    assert sorted(rows) == [0, 1, 2]


def test_every_epoch_has_an_order_of_its_own_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batching.shuffled(100, 10, None)
    assert epoch(batches, 0) != epoch(batches, 1)
    assert epoch(batches, 1) == epoch(batching.shuffled(100, 10, None), 1)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert epoch(batching.shuffled(100, 10, None), 1) != epoch(batches, 1), "the seed decides it"


def test_what_is_to_be_overfitted_is_the_same_in_every_epoch() -> None:
    batches = batching.shuffled(100, 10, SimpleNamespace(overfit_batches=2))  # type: ignore[arg-type]
    assert epoch(batches, 0) == epoch(batches, 5)
    assert isinstance(batches, SequentialSampler), "or Lightning puts another in its place, a row at a time"


def test_processes_share_every_batch_and_do_as_many_steps_as_one(together: Any) -> None:
    whole = epoch(batching.shuffled(100, 10, None), 3)
    shares = []
    for process in (0, 1):
        together(process)
        shares.append(epoch(batching.shuffled(100, 10, None), 3))
    assert all(len(rows) == 5 for share in shares for rows in share)
    assert [sorted([*one, *other]) for one, other in zip(*shares, strict=True)] == [sorted(rows) for rows in whole]
    assert isinstance(batching.shuffled(100, 10, None), DistributedSampler), "or Lightning shares it once more"


@pytest.mark.parametrize("count", [2, 7, 500, 501, 999])
def test_what_is_judged_is_shared_with_nothing_twice_and_in_as_many_batches(together: Any, count: int) -> None:
    shares = []
    for process in (0, 1):
        together(process)
        shares.append(epoch(batching.in_order(count, 500)))
    assert len(shares[0]) == len(shares[1]), "a process with a batch more would wait for the other for ever"
    assert all(shares[0]) and all(shares[1]), "a mean over no samples is not a number"
    assert sorted(row for share in shares for rows in share for row in rows) == list(range(count))


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_one_that_can(together: Any) -> None:
    together(0)
    with pytest.raises(
        TrainingError, match=r"a batch of 5 cannot be shared evenly among 2 processes[^$]*--data.batch_size 6"
    ):
        batching.shuffled(100, 5, None)
    with pytest.raises(DataError, match="1 samples cannot be shared among 2 processes"):
        batching.in_order(1, 500)


def test_batches_that_are_given_keep_their_rows() -> None:
    assert epoch(batching.given([torch.tensor([2, 0]), torch.tensor([1])])) == [[2, 0], [1]]
