"""Representative inputs of a brought graph, and perhaps labels: a .npz, checked against the spec."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.spec import DynamicDim, ModelSpec
from export.errors import SampleError
from export.proof.gates import Answers

# With fewer held-out samples than this no figure says anything: one flipped answer would be over 5 %.
_FEWEST = 20


def read_samples(path: Path, spec: ModelSpec) -> tuple[dict[str, NDArray[Any]], Answers | None]:
    """Read {input: [N, …]} and the labels, [N] or for the task ctc [N, length], or None.

    Raises:
        SampleError: the file is no .npz of plain arrays, or they do not fit the spec, or are too few.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except FileNotFoundError:
        raise SampleError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: a .npy
        raise SampleError(
            f"{path} is no .npz of plain arrays, or a damaged one",
            note=str(error).partition("\n")[0] or type(error).__name__,
            hint="numpy.savez(path, **{input name: array})",
        ) from error
    labels = arrays.pop("labels", None)
    wanted = {tensor.name: tensor for tensor in spec.inputs}
    if arrays.keys() != wanted.keys():
        raise SampleError(f"{path} holds {_listed(arrays)}", note=f"the inputs of the spec are {_listed(wanted)}")
    for name, values in arrays.items():
        if values.dtype != wanted[name].dtype:
            raise SampleError(f"{name} in {path} is {values.dtype}", note=f"the spec says {wanted[name].dtype}")
        if values.ndim != len(wanted[name].shape) or not all(
            d.min <= size <= d.max if isinstance(d, DynamicDim) else size == d
            for d, size in zip(wanted[name].shape[1:], values.shape[1:], strict=True)
        ):
            raise SampleError(
                f"{name} in {path} has shape {list(values.shape)}", note=f"the spec: {wanted[name].shape}"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SampleError(f"{name} in {path} has inf or nan in it")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.ndim != (2 if spec.task == "ctc" else 1)):
        raise SampleError(
            f"labels in {path} are {labels.dtype} {list(labels.shape)}",
            note="class indices [N], or for the task ctc [N, length] padded with -1",
        )
    counts = {len(values) for values in [*arrays.values(), *([] if labels is None else [labels])]}
    if len(counts) > 1 or min(counts) < 2 * _FEWEST:
        raise SampleError(
            f"{path} has {' and '.join(str(c) for c in sorted(counts))} samples",
            note=f"every array needs the same number, at least {2 * _FEWEST}: half calibrate, half are held out",
        )
    classes = next(tensor.shape[-1] for tensor in spec.outputs if tensor.name == spec.answer_output)
    least = -1 if spec.task == "ctc" else 0
    if labels is not None and isinstance(classes, int) and not (least <= labels.min() and labels.max() < classes):
        raise SampleError(
            f"labels in {path} reach from {labels.min()} to {labels.max()}",
            note=f"{spec.answer_output} has {classes} classes, counted from 0",
        )
    return arrays, None if labels is None else labels.astype(np.int64)


def _listed(names: object) -> str:
    return ", ".join(names) or "nothing"  # type: ignore[arg-type]  # mappings
