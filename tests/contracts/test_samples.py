"""Samples are taken as they are: in groups of equal shapes, none padded, none left out unseen."""

from pathlib import Path

import numpy as np

from contracts.samples import Group, Split, save_arrays


def split(*counts: int) -> Split:
    """A group of so many samples each, whose only value is the number of the group."""
    return Split(tuple(Group({"x": np.full((n, 2 + at), at)}, np.full(n, at)) for at, n in enumerate(counts)))


def test_some_samples_are_of_every_group_in_proportion() -> None:
    assert [len(group) for group in split(100, 50, 2).first(15).groups] == [10, 5, 1]
    assert len(split(10, 10).first(99)) == 20


def test_of_more_groups_than_samples_asked_for_some_groups_are_taken() -> None:
    some = split(*[3] * 1000).first(64)
    assert len(some) <= 64
    assert {group.inputs["x"].shape[1] for group in some.groups} >= {2, 18, 34}, "from the first to the last"


def test_halves_are_of_every_group() -> None:
    first, second = split(5, 1).halves()
    assert ([len(group) for group in first.groups], [len(group) for group in second.groups]) == ([2], [3, 1])


def test_batches_never_mix_groups_and_a_sample_alone_has_no_such_axis() -> None:
    assert [len(batch["x"]) for batch in split(5, 3).batches(4)] == [4, 1, 3]
    assert [batch["x"].shape for batch in split(1, 1).batches(0)] == [(2,), (3,)]


def test_the_same_arrays_of_any_name_are_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3), "a/b": np.array("text"), "größe": np.float32(1)}
    for name in ("one.npz", "two.npz"):
        save_arrays(tmp_path / name, arrays)
    with np.load(tmp_path / "one.npz", allow_pickle=False) as stored:
        assert {name: values.tolist() for name, values in stored.items()} == {
            name: np.asarray(values).tolist() for name, values in arrays.items()
        }
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
