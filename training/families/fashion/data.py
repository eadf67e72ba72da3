"""Fashion-MNIST: found, fetched or unpacked, checked by digest, and held in memory (55 MB).

Xiao, Rasul, Vollgraf (2017), https://github.com/zalandoresearch/fashion-mnist, MIT licence.
"""

import gzip
import hashlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cli.installing import debian
from cli.progress import track
from contracts import layout
from contracts.samples import Split
from training import batching
from training.errors import DataError

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
_INSTALLED = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the uncompressed files: Debian compresses the same bytes anew, so the .gz differ.
_DIGESTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_VALIDATION_IMAGES = 5_000
_SPLIT_SEED = 0

Part = Literal["train", "val", "test"]


def locate(root: Path, mirror: str = MIRROR) -> Path:
    """Find or fetch the directory with the four .gz files, from the nearest source that has them whole.

    Args:
        root: Where they are put, in a folder of their own.

    Raises:
        DataError: naming every source tried and why it failed.
    """
    home = root / "fashion-mnist"
    for directory in (home, _INSTALLED):
        if not _damage(directory):
            return directory
    reasons = [f"{home}: {_damage(home)}"]
    home.mkdir(parents=True, exist_ok=True)
    for source, fetch in (
        (mirror, _download),
        (f"Debian's package {DEBIAN_PACKAGE}", _unpack_debian_package),
    ):
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as scratch:
            try:
                found = fetch(Path(scratch), mirror)
            except (OSError, ValueError) as error:
                reasons.append(f"{source}: {_last_line(error)}")
                continue
            if damage := _damage(found):
                reasons.append(f"{source}: {damage}")
                continue
            for name in _DIGESTS:
                shutil.move(found / f"{name}.gz", home / f"{name}.gz")
            return home
    raise DataError(
        "Fashion-MNIST was not found and could not be fetched",
        note="\n  ".join(["tried", *reasons]),
        hint=f"put {', '.join(f'{n}.gz' for n in _DIGESTS)} into {home}",
    )


def read(directory: Path) -> dict[str, NDArray[np.uint8]]:
    """Read the four files as arrays: images [N, 1, 28, 28] and labels [N], all uint8."""
    arrays = {}
    for name in _DIGESTS:
        with gzip.open(directory / f"{name}.gz") as stream:
            raw = stream.read()
        # IDX: a 4-byte magic number, then one big-endian 4-byte length a dimension.
        offset, shape = (16, (-1, 1, 28, 28)) if "images" in name else (8, (-1,))
        arrays[name] = np.frombuffer(raw, np.uint8, offset=offset).reshape(shape)
    return arrays


class DataModule(pl.LightningDataModule):
    """Fashion-MNIST in memory: 55,000 images to train, 5,000 to validate, the original 10,000 to test.

    Args:
        root: Where the data lies or is put; None for the project's own place.
        mirror: Where it is downloaded from.
        batch_size: Images a step.
        augment: Random horizontal flip and a shift of up to two pixels on training images.
    """

    def __init__(
        self, root: Path | None = None, mirror: str = MIRROR, batch_size: int = 128, augment: bool = True
    ) -> None:
        super().__init__()
        self.root, self.mirror = root or layout.data(), mirror
        self.batch_size, self.augment = batch_size, augment
        self.save_hyperparameters("batch_size", "augment")
        self._splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}

    @property
    def fingerprint(self) -> str:
        """A digest of the data and of how it is split."""
        recipe = "".join(_DIGESTS.values()) + f"validation={_VALIDATION_IMAGES} seed={_SPLIT_SEED}"
        return hashlib.sha256(recipe.encode()).hexdigest()

    def prepare_data(self) -> None:
        """Fetch the data if it is not there; Lightning calls this in one process only.

        Raises:
            DataError: it cannot be had.
        """
        locate(self.root, self.mirror)

    def setup(self, stage: str | None = None) -> None:
        """Read the files and split them, whatever the stage; a second call does nothing."""
        if self._splits:
            return
        arrays = read(locate(self.root, self.mirror))
        images, labels = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"].astype(np.int64)
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
        val, train = order[:_VALIDATION_IMAGES], order[_VALIDATION_IMAGES:]
        self._splits = {
            "train": (images[train], labels[train]),
            "val": (images[val], labels[val]),
            "test": (arrays["t10k-images-idx3-ubyte"], arrays["t10k-labels-idx1-ubyte"].astype(np.int64)),
        }

    def split(self, name: Part) -> Split:
        """Return images, {"pixels": uint8 [N, 1, 28, 28]}, and their classes, int64 [N]."""
        images, labels = self._arrays(name)
        return Split.of({"pixels": images}, labels)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffle the training images anew each epoch; the last, smaller batch is left out."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the validation images in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return the test images in order."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment training images, on the device that they are on by now."""
        images, labels = batch
        if self.augment and self.trainer is not None and self.trainer.training:
            images = _flip_and_shift(images)
        return images, labels

    def _arrays(self, name: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        self.setup()
        return self._splits[name]

    def _loader(self, name: Part, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, Tensor]]:
        images, labels = self._arrays(name)
        count = len(labels)
        rows = batching.shuffled(count, self.batch_size, self.trainer) if shuffle else batching.in_order(count, 500)
        # The images are in memory and fetched a batch at a time: worker processes would only copy them, and one by one
        # they would cost more than the training step.
        dataset = TensorDataset(torch.from_numpy(images.copy()), torch.from_numpy(labels))
        return batching.loader(dataset, rows)


def _flip_and_shift(images: Tensor, reach: int = 2) -> Tensor:
    """Flip half of the images [B, 1, H, W] left-right and shift each by up to `reach` pixels."""
    batch, _, height, width = images.shape
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch, -1)
    flipped = torch.rand(batch, 1, device=images.device) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    shift = torch.randint(0, 2 * reach + 1, (2, batch, 1), device=images.device)
    padded = F.pad(images, (reach,) * 4)[:, 0]
    index = torch.arange(batch, device=images.device)[:, None, None]
    return padded[index, (rows + shift[0])[:, :, None], (columns + shift[1])[:, None, :]][:, None]


def _damage(directory: Path) -> str | None:
    """Say what is wrong with the first bad file in `directory`, or None."""
    for name, digest in _DIGESTS.items():
        path = directory / f"{name}.gz"
        if not path.is_file():
            return f"{path.name} is not there"
        try:
            with gzip.open(path) as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, EOFError) as error:
            return f"{path.name} is damaged ({error})"
        if found != digest:
            return f"{path.name} is not the original (SHA-256 {found[:12]}…, expected {digest[:12]}…)"
    return None


def _download(scratch: Path, mirror: str) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    for name in track(_DIGESTS, "downloading", "files"):
        pooch.retrieve(
            url=f"{mirror.rstrip('/')}/{name}.gz",
            known_hash=None,  # the caller checks what is inside
            path=scratch,
            fname=f"{name}.gz",
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    return scratch


def _unpack_debian_package(scratch: Path, mirror: str) -> Path:
    debian.unpack([DEBIAN_PACKAGE], scratch)
    return scratch / _INSTALLED.relative_to("/")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
