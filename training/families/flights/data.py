"""The departures, split by time: January to August to train, September to validate, October to December to test.

A model is asked about flights of the future, and so is judged by flights of its future.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from contracts import layout
from contracts.samples import Group, Split
from training import batching
from training.errors import DataError
from training.families.flights import entities, features
from training.families.flights.features import serving
from training.families.flights.tables import delays, departures, prepared, source

_MONTHS = {"train": range(1, 9), "val": range(9, 10), "test": range(10, 13)}
# So many of the training flights have a category that nobody knows, for the model to learn what it then says.
_FORGOTTEN = 0.01
# Of so many nobody knows how late others are, as of every flight when the feature store is gone.
_UNTOLD = 0.1
_SEED = 0
_MOST = 4096  # flights of a batch that is only judged

_DELAYS = [serving.NUMBERS.index(name) for name in entities.DELAYS]  # their columns

Part = Literal["train", "val", "test"]
Flights = tuple[Tensor, Tensor, Tensor]  # categories [B, 3], numbers [B, 23], late [B]


class DataModule(pl.LightningDataModule):
    """The flights of 2013 that arrived where they were bound for, in memory.

    Args:
        root: Where the data lies or is put; None for the project's own place.
        batch_size: Flights a step.
        rows: About so many of each month, to try something; None for all.
        prepared: A Parquet file of flights with all that is known of them; None: they are joined here.
    """

    def __init__(
        self, root: Path | None = None, batch_size: int = 1024, rows: int | None = None, prepared: str | None = None
    ) -> None:
        super().__init__()
        self.root, self.batch_size, self.rows, self.prepared = root or layout.data(), batch_size, rows, prepared
        self.save_hyperparameters("batch_size", "rows", "prepared")  # a checkpoint has them, for whoever exports it

    @property
    def fingerprint(self) -> str:
        """A digest of the flights, wherever they were joined, of how they are split, and of the features."""
        how = (sorted(_MONTHS.items(), key=str), departures.LATE_MINUTES, _FORGOTTEN, _UNTOLD)
        parts = repr(how).encode(), self._digest, features.fingerprint().encode()
        return hashlib.sha256(b"".join(parts)).hexdigest()

    @cached_property
    def flights(self) -> pd.DataFrame:
        """All flights (departures.py), with the delays that were known (delays.py), in the order of departures."""
        if self.prepared is not None:
            found = prepared.read(Path(self.prepared))
        else:
            found, _ = _joined(source.locate(self.root))
        if self.rows is not None:
            if self.rows < 1:
                raise DataError(
                    f"{self.rows} flights of each month are none", hint="--data.rows 1 or more; without it all"
                )
            months = found.groupby(found["departure"].dt.month)
            found = found[months.cumcount() % (months["late"].transform("size") // self.rows).clip(lower=1) == 0]
        return found

    @cached_property
    def _digest(self) -> bytes:
        """Digest what the flights are: the same values are the same data."""
        found = hashlib.sha256()
        for name in (*entities.KEY, "departure", "departure_utc", *serving.RANGES, "late"):
            values = self.flights[name]
            if name in serving.RANGES:
                numbers = values.to_numpy(np.float64)
                found.update(np.where(np.isnan(numbers), np.nan, numbers + 0.0).tobytes())  # one NaN, and one zero
            elif name in entities.KEY:
                found.update("\n".join(values).encode())
            else:
                whole = values if name == "late" else values.dt.as_unit("s")
                found.update(whole.astype("int64").to_numpy().tobytes())
        return found.digest()

    def part(self, name: Part) -> pd.DataFrame:
        """Return the flights of a split."""
        return self.flights[self.flights["departure"].dt.month.isin(_MONTHS[name])]

    def split(self, name: Part) -> Split:
        """Return {"categories": int32 [N, 3], "numbers": float32 [N, 23]} and late, int64 [N]: a group each month."""
        flights = self.part(name)
        return Split(tuple(self._group(name, month) for _, month in flights.groupby(flights["departure"].dt.month)))

    def tables(self) -> dict[str, Mapping[str, NDArray[Any]]]:
        """Return what a release looks up for a caller who knows a flight, and not its plane and its weather.

        Of a flight's number the plane that flew it last is taken for the next, as the newest of its rows.
        """
        key = ["carrier", "flight", "origin", "destination"]
        last = self.flights.drop_duplicates(key, keep="last")
        schedule = {name: last[name].to_numpy(str) for name in key}
        schedule |= {name: last[name].to_numpy(np.float64) for name in ("duration", "distance", *entities.PLANE)}
        _, hours = _joined(source.locate(self.root))
        weather = {"origin": hours["origin"].to_numpy(str), "time": hours["time"].to_numpy(np.int64)}
        weather |= {name: hours[name].to_numpy(np.float64) for name in entities.WEATHER}
        return {"schedule": schedule, "weather": weather}

    def requests(self, count: int) -> dict[str, NDArray[Any]]:
        """Return `count` flights of the test split as the ensemble takes them, spread over its months, in order."""
        flights = self.part("test")
        return asked(flights.iloc[np.linspace(0, len(flights) - 1, min(count, len(flights))).astype(int)])

    def train_dataloader(self) -> DataLoader[Flights]:
        """Shuffle the flights anew each epoch; the last, smaller batch is left out."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Flights]:
        """Return the flights of September in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Flights]:
        """Return the flights of the last three months in order."""
        return self._loader("test")

    def _group(self, name: Part, flights: pd.DataFrame) -> Group:
        categories, numbers = encode(flights)
        if name == "train":
            chance = np.random.default_rng(_SEED)
            forgotten = chance.random(categories.shape) < _FORGOTTEN
            categories = np.where(forgotten, serving.UNKNOWN, categories).astype(np.int32)
            numbers[np.ix_(chance.random(len(numbers)) < _UNTOLD, _DELAYS)] = np.nan
        month = flights["departure"].iloc[0].month_name()
        late = flights["late"].to_numpy(np.int64)
        return Group({"categories": categories, "numbers": numbers}, late, name=month)

    def _loader(self, name: Part) -> DataLoader[Flights]:
        groups, train = self.split(name).groups, name == "train"
        columns = [np.concatenate([group.inputs[key] for group in groups]) for key in ("categories", "numbers")]
        late = np.concatenate([group.targets for group in groups if group.targets is not None])
        dataset = TensorDataset(*map(torch.from_numpy, (*columns, late)))
        # Whole batches of rows at a time: one by one costs more than the training step.
        count = len(late)
        rows = batching.shuffled(count, self.batch_size, self.trainer) if train else batching.in_order(count, _MOST)
        return batching.loader(dataset, rows)


@lru_cache(maxsize=1)
def _joined(directory: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all flights, and the weather by the hour; both take seconds to read, and an export asks several times."""
    tables = departures.read(directory)
    return delays.joined(departures.departures(tables)), departures.weather(tables)


def asked(flights: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return flights as the ensemble takes them, {input: [N, 1]}: texts as bytes, numbers as float32."""
    texts = {name: flights[name] for name in serving.CATEGORIES}
    texts["departure"] = flights["departure"].dt.strftime("%Y-%m-%dT%H:%M")
    found: dict[str, NDArray[Any]] = {
        name: np.array([text.encode() for text in values], np.object_)[:, None] for name, values in texts.items()
    }
    return found | {name: flights[name].to_numpy(np.float32)[:, None] for name in serving.RANGES}


def encode(flights: pd.DataFrame) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return categories int32 [N, 3] and numbers float32 [N, 23] of flights, as serving makes them of requests."""
    categories, numbers = serving.encode(
        {name: flights[name].tolist() for name in serving.CATEGORIES},
        flights["departure"].tolist(),
        {name: flights[name].to_numpy(np.float64) for name in serving.RANGES},
        serving.read_vocabularies(features.VOCABULARIES),
    )
    return categories, numbers
