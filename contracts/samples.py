"""Samples as they are: groups of equal shapes, each with what is true of it if that is known."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from contracts.files import texts

_HEADERS: Mapping[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Batch = Mapping[str, NDArray[Any]]  # by tensor name, every array [B, …]


@dataclass(frozen=True, eq=False)
class Group:
    """Samples that have the same shapes, such as sounds of one length, or belong together, such as those of a month."""

    inputs: Batch  # {input: [n, …]}; of a network without a batch, [n, *its whole shape]
    targets: NDArray[Any] | None = None  # [n, …], of any dtype
    expected: Batch | None = None  # {output: [n, …]}: what the framework that it comes from gives
    name: str = ""  # what they are, "October": a segment, which metrics are shown of, and held to, by itself

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, chosen: slice | NDArray[np.intp]) -> Group:
        """Return some of the samples."""
        return Group(
            {name: values[chosen] for name, values in self.inputs.items()},
            None if self.targets is None else self.targets[chosen],
            None if self.expected is None else {name: values[chosen] for name, values in self.expected.items()},
            self.name,
        )


@dataclass(frozen=True, eq=False)
class Split:
    """A part of a dataset. Its samples are in the order of its groups, and nothing is padded."""

    groups: tuple[Group, ...]

    @staticmethod
    def of(inputs: Batch, targets: NDArray[Any] | None = None) -> Split:
        """Make a split whose samples all have the same shapes."""
        return Split((Group(inputs, targets),))

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    @property
    def targets(self) -> list[NDArray[Any]] | None:
        """What is true of each group's samples, or None where it is not known."""
        known = [group.targets for group in self.groups if group.targets is not None]
        return known if len(known) == len(self.groups) else None

    @property
    def expected(self) -> list[Batch] | None:
        """What the framework gives for each group's samples, or None where it is not known."""
        known = [group.expected for group in self.groups if group.expected is not None]
        return known if len(known) == len(self.groups) else None

    @property
    def segments(self) -> dict[str, slice]:
        """Return {name: where its samples are} of the groups that are named."""
        found, start = {}, 0
        for group in self.groups:
            if group.name:
                found[group.name] = slice(start, start + len(group))
            start += len(group)
        return found

    def first(self, count: int) -> Split:
        """Return about so many of the samples, in proportion from every group; of more groups one from each n-th."""
        if count >= len(self):
            return self
        groups = self.groups[:: -(-len(self.groups) // count)]
        share = count / sum(map(len, groups))
        return Split(tuple(group.take(slice(max(1, round(len(group) * share)))) for group in groups))

    def halves(self) -> tuple[Split, Split]:
        """Return the first half of every group, and the second."""
        first, second = [], []
        for group in self.groups:
            middle = len(group) // 2
            first.append(group.take(slice(middle)))
            second.append(group.take(slice(middle, None)))
        return Split(tuple(g for g in first if len(g))), Split(tuple(g for g in second if len(g)))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the inputs of up to `size` samples of a group at a time; for 0 each sample alone, with no such axis."""
        for group in self.groups:
            for start in range(0, len(group), size or 1):
                if size:
                    yield group.take(slice(start, start + size)).inputs
                else:
                    yield {name: np.asarray(values[start]) for name, values in group.inputs.items()}


def load_arrays(path: Path, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Read all arrays of a .npz: what they would take is looked at before any of them is unpacked.

    Arrays of objects are read where they hold text alone.

    Raises:
        ValueError: they take more than `most_bytes`; or as numpy.load does of what is no .npz of plain arrays.
        OSError, EOFError, zipfile.BadZipFile, zlib.error: as numpy.load.
    """
    with zipfile.ZipFile(path) as stored:
        headers = {entry: _header(stored, entry) for entry in stored.infolist()}
    size = sum(max(entry.file_size, math.prod(shape) * dtype.itemsize) for entry, (shape, dtype) in headers.items())
    if size > most_bytes:
        raise ValueError(f"its arrays would take {size:,} bytes, and the limit is {most_bytes:,}")
    with np.load(path, allow_pickle=False) as arrays:
        of_text = {entry.filename.removesuffix(".npy") for entry, (_, dtype) in headers.items() if dtype.hasobject}
        return {name: _texts(path, name) if name in of_text else arrays[name] for name in arrays.files}


def _header(stored: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the dtype that an array says it has."""
    with stored.open(entry) as stream:
        return _read_header(stream, entry.filename)


def _texts(path: Path, name: str) -> NDArray[np.object_]:
    with zipfile.ZipFile(path) as stored, stored.open(f"{name}.npy") as stream:
        _read_header(stream, name)
        return texts.read(stream)


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{name} is no plain array")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def save_arrays(path: Path, arrays: Batch) -> None:
    """Write a .npz of plain arrays whatever they are called, the same bytes for the same arrays.

    numpy.savez takes no array that is called `file`, and writes the time into the file.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stored:
        for name, values in arrays.items():
            with stored.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(values), allow_pickle=False)
