"""Which samples a step gets: an epoch cut into batches, and of each batch the share of one of several processes.

  batching.loader(dataset, batching.shuffled(len(dataset), 128, self.trainer))

A batch is what a step learns from, however many processes take it: two do the same steps as one, each with half of
every batch. So a fit is the same fit on one device and on several, and its schedule counts the same steps.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from training.errors import DataError, TrainingError


class Batches(DistributedSampler[Tensor], SequentialSampler):
    """The rows of each batch, int64 [n]: this process's share of them.

    Lightning puts a sampler of its own in place of others: rows of its own drawing for each process, some of them
    twice, and with `overfit_batches` one row at a time. It leaves alone what is both of these classes, and tells it
    of every epoch.

    Args:
        batches: {epoch: the rows of each batch}, the same in every process.
        count: How many batches an epoch has.
    """

    def __init__(self, batches: Callable[[int], Sequence[Tensor]], count: int) -> None:
        self.processes, self.process = processes(), process()
        super().__init__(range(count), num_replicas=self.processes, rank=self.process)  # type: ignore[arg-type]
        self._batches, self._count = batches, count

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # a batch, where others have a row
        """Yield this process's rows of each batch of the epoch."""
        for rows in self._batches(self.epoch):
            yield rows[self.process :: self.processes]

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return self._count


def loader(dataset: Dataset[Any], batches: Batches) -> DataLoader[Any]:
    """Load batches of `dataset`, whose `__getitem__` takes the rows of one.

    It draws nothing of the random numbers that modules draw from: an epoch has the same, whenever its loader was made.
    """
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=torch.Generator())


def processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if _together() else 1


def process() -> int:
    """Return which of them this is, from 0."""
    return distributed.get_rank() if _together() else 0


def shuffled(count: int, size: int, trainer: Trainer | None) -> Batches:
    """Draw the order of `count` samples anew each epoch; a last batch that is smaller is left out, unless it is all.

    The order follows from the seed and the epoch alone: a fit that is resumed has the one it would have had.
    With `--trainer.overfit_batches` every epoch has that of the first.

    Raises:
        TrainingError: a batch is of nothing, or cannot be shared evenly among the processes.
        DataError: there is nothing to train with.
    """
    if count < 1:
        raise DataError("there is nothing to train with: the training split has no samples")
    if size < 1:
        raise TrainingError(f"a batch of {size} samples is none", hint="--data.batch_size 1 or more")
    if size % processes():
        raise TrainingError(
            f"a batch of {size} cannot be shared evenly among {processes()} processes",
            note="a step learns from data.batch_size samples, of which each process gets its share",
            hint=f"--data.batch_size {-(-size // processes()) * processes()}",
        )
    seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # where Lightning keeps it
    still = trainer is not None and trainer.overfit_batches > 0  # type: ignore[attr-defined]  # Lightning sets it

    def batches(epoch: int) -> Sequence[Tensor]:
        chance = torch.Generator().manual_seed(seed + (0 if still else 1_000_003 * epoch))
        order = torch.randperm(count, generator=chance)
        return [order[start : start + size] for start in range(0, max(count - size + 1, 1), size)]

    return Batches(batches, max(count // size, 1))


def in_order(count: int, most: int) -> Batches:
    """Take `count` samples in their order, in batches of about the same size, of at most `most`.

    Raises:
        DataError: there are fewer samples than processes.
    """
    if count < processes():
        raise DataError(f"{count} samples cannot be shared among {processes()} processes")
    return given(torch.arange(count).tensor_split(-(-count // most)))


def given(batches: Sequence[Tensor]) -> Batches:
    """Take these batches in their order; of a small one a process may get no rows."""
    return Batches(lambda epoch: batches, len(batches))


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
