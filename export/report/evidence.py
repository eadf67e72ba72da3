"""The answers sample by sample, and what they say: recall per class, and the samples that flipped."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.judging.metric import same
from contracts.samples import Split
from contracts.spec import Precision
from export.report.importance import Importance

_IMAGE_SIZE = (320, 160)  # pixels at most: twice what the page shows
_SMALL = 64  # pixels: up to here an image is shown as it is, pixel by pixel


@dataclass(frozen=True)
class Evidence:
    """What the report shows beyond the manifest: the answers, sample by sample, on the held-out split."""

    samples: Split  # as the network gets them
    labels: NDArray[np.int64] | None  # [N] class indices, or [N, L] padded with -1 (task "ctc"); None: unlabelled
    reference: NDArray[np.int64] | None  # the reference's answers, same shape; None where they are not discrete
    answers: Mapping[Precision, NDArray[np.int64]]  # each variant's answers; empty where they are not discrete
    importance: Importance | None = None  # of the columns of a table; None where there are none

    def sample(self, index: int) -> Mapping[str, NDArray[Any]]:
        """Return the inputs of one sample."""
        for group in self.samples.groups:
            if index < len(group):
                return {name: values[index] for name, values in group.inputs.items()}
            index -= len(group)
        raise IndexError(index)


@dataclass(frozen=True)
class Image:
    """A sample's picture, as a data URL."""

    url: str
    small: bool  # to be enlarged without smoothing
    wide: bool  # a line of text rather than an object


@dataclass(frozen=True)
class Flip:
    """One sample that a variant answers differently from the reference. None: it has no label, or no picture."""

    index: int
    label: str | None
    reference: str
    answer: str
    was_right: bool | None
    is_right: bool | None
    image: Image | None


@dataclass(frozen=True)
class Flips:
    """All samples that one variant answers differently, and some of them to look at."""

    total: int
    counts: Mapping[str, int]  # "right → wrong": 12; empty where nothing is labelled
    shown: tuple[Flip, ...]


@dataclass(frozen=True)
class Recall:
    """How much of one class is found: by the reference, and by each variant."""

    name: str
    samples: int
    reference: float
    variants: Mapping[Precision, float]

    @property
    def largest_change(self) -> float:
        """How far the variant that differs most is from the reference; a share, without sign."""
        return max((abs(share - self.reference) for share in self.variants.values()), default=0.0)


def flips(evidence: Evidence, precision: Precision, names: Sequence[str], show: int) -> Flips:
    """Find the samples that a variant answers differently; what was lost comes first, then what was gained.

    Args:
        names: The classes' names, by index; empty where there are none.
        show: How many of the samples the page shows, at most.
    """
    answers, reference, labels = evidence.answers[precision], evidence.reference, evidence.labels
    assert reference is not None  # where there are answers, there are the reference's
    changed = np.flatnonzero(~same(answers, reference))
    counts: dict[str, int] = {}
    was_right = is_right = None
    if labels is not None:
        was_right, is_right = same(reference, labels), same(answers, labels)
        kind = np.where(was_right, 0, np.where(is_right, 1, 2))[changed]
        counts = {
            name: int((kind == number).sum())
            for number, name in enumerate(("right → wrong", "wrong → right", "wrong → wrong"))
        }
        changed = changed[np.argsort(kind, kind="stable")]
    shown = tuple(
        Flip(
            index=int(i),
            label=None if labels is None else _text(labels[i], names),
            reference=_text(reference[i], names),
            answer=_text(answers[i], names),
            was_right=None if was_right is None else bool(was_right[i]),
            is_right=None if is_right is None else bool(is_right[i]),
            image=_picture(evidence.sample(int(i))),
        )
        for i in changed[:show]
    )
    return Flips(len(changed), counts, shown)


def recalls(evidence: Evidence, names: Sequence[str]) -> list[Recall]:
    """Compute the recall of each class that has samples, the most changed first; [] where labels are sequences."""
    labels, reference = evidence.labels, evidence.reference
    if labels is None or reference is None or labels.ndim != 1:
        return []
    samples = np.bincount(labels)

    def found(answers: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.bincount(labels[answers == labels], minlength=len(samples)) / np.maximum(samples, 1)

    by_reference = found(reference)
    by_variant = {precision: found(answers) for precision, answers in evidence.answers.items()}
    rows = [
        Recall(
            name=_text(i, names),
            samples=int(samples[i]),
            reference=float(by_reference[i]),
            variants={precision: float(shares[i]) for precision, shares in by_variant.items()},
        )
        for i in np.flatnonzero(samples)
    ]
    return sorted(rows, key=lambda row: -row.largest_change)


def _text(answer: Any, names: Sequence[str]) -> str:
    """Name a class, or spell a sequence; numbers where nothing is named."""
    if np.ndim(answer) == 0:
        return names[answer] if names else str(answer)
    indices = [int(i) for i in answer if i >= 0]
    return "".join(names[i] for i in indices) if names else " ".join(map(str, indices))


def _picture(sample: Mapping[str, NDArray[Any]]) -> Image | None:
    return next((_image(array) for array in sample.values() if _looks_like_an_image(array)), None)


def _looks_like_an_image(array: NDArray[Any]) -> bool:
    return array.ndim == 3 and array.shape[0] in (1, 3) and (array.dtype == np.uint8 or array.dtype.kind == "f")


def _image(pixels: NDArray[Any]) -> Image:
    """Encode pixels, [1 or 3, H, W]; floats are scaled from their own smallest to their own largest value."""
    from PIL import Image as Pillow

    if pixels.dtype != np.uint8:
        values = np.nan_to_num(pixels.astype(np.float64), posinf=0, neginf=0)
        pixels = ((values - values.min()) / max(np.ptp(values), 1e-12) * 255).round().astype(np.uint8)
    picture = Pillow.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    small = max(picture.size) <= _SMALL
    picture.thumbnail(_IMAGE_SIZE)
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", lossless=small, quality=80)
    url = f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    return Image(url, small, wide=picture.width > 2 * picture.height)
