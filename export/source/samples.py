"""Representative inputs of a brought model, perhaps with labels and its framework's answers: .npz, held to the spec.

Each file is a group of samples of equal shapes: sounds of one length, texts of one number of tokens. It holds an array
[N, …] an input, and may hold `labels` and `expected.OUTPUT` arrays, what the framework gives for the same samples.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts import manifest, samples
from contracts.files import texts
from contracts.samples import Batch, Group, Split
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export.errors import SampleError

# With fewer held-out samples than this no figure says anything: one flipped answer would be over 5 %.
_FEWEST = 20
_A_CLASS = 3  # samples of a class on average, from which on it is no chance that they lie side by side
_MOST_BYTES = 16 << 30  # that the arrays of a file may take: more goes into several files
_LABELS = "labels"
_EXPECTED = "expected."


def read_samples(paths: Sequence[Path], spec: ModelSpec) -> Split:
    """Read samples, a group for each file; a folder stands for the .npz files in it.

    Raises:
        SampleError: a file is no .npz of plain arrays, or does not fit the spec, or there are too few samples.
    """
    split = Split(tuple(_group(path, spec) for path in files_of(paths)))
    if len(split) < 2 * _FEWEST:
        raise SampleError(
            f"{_named(paths)} has {len(split)} samples",
            note=f"at least {2 * _FEWEST} are needed: half calibrate, half are held out",
        )
    for what, known in (("labels", split.targets), ("expected outputs", split.expected)):
        given = [getattr(group, "targets" if what == "labels" else "expected") for group in split.groups]
        if known is None and any(value is not None for value in given):
            raise SampleError(f"{_named(paths)}: some files have {what}, others have none")
    if split.targets is not None and spec.task in ("classification", "binary"):
        _check_classes(paths, split, spec)
    return split


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return the files, with the .npz files of a folder in its place.

    Raises:
        SampleError: a folder holds none.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        if not (inside := sorted(path.glob("*.npz"))):
            raise SampleError(f"{path} holds no .npz")
        found += inside
    return found


def fingerprint(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of one file's bytes, or of the digests of several."""
    digests = [manifest.sha256(path) for path in files_of(paths)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a .npz.

    Raises:
        SampleError: it is missing, or is no .npz of plain arrays.
    """
    try:
        return samples.load_arrays(path, _MOST_BYTES)
    except FileNotFoundError:
        raise SampleError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: a .npy
        raise SampleError(
            f"{path} is no .npz of plain arrays, or a damaged one",
            note=str(error).partition("\n")[0] or type(error).__name__,
            hint="numpy.savez(path, **{input name: array})",
        ) from error


def _group(path: Path, spec: ModelSpec) -> Group:
    arrays = load_arrays(path)
    wanted = {tensor.name: tensor for tensor in spec.inputs}
    inputs = {name: _whole(arrays.pop(name), tensor, spec) for name, tensor in wanted.items() if name in arrays}
    targets = arrays.pop(_LABELS, None)
    expected = {name.removeprefix(_EXPECTED): arrays.pop(name) for name in [*arrays] if name.startswith(_EXPECTED)}
    outputs = {tensor.name: tensor for tensor in spec.outputs}
    expected = {n: _whole(values, outputs[n], spec) if n in outputs else values for n, values in expected.items()}
    inputs, expected = ({n: _as_text(path, n, v) for n, v in each.items()} for each in (inputs, expected))
    if arrays or inputs.keys() != wanted.keys():
        raise SampleError(
            f"{path} holds {_listed([*inputs, *arrays])}", note=f"the inputs of the spec are {_listed(wanted)}"
        )
    for name, values in inputs.items():
        _check(path, name, values, wanted[name], spec)
    _check_expected(path, expected, spec)
    if targets is not None:
        targets = _checked_targets(path, targets, spec)
    arrays = {**inputs, **expected, **({} if targets is None else {_LABELS: targets})}
    counts = {len(values) for values in arrays.values()}
    if len(counts) > 1:
        raise SampleError(
            f"{path} has {' and '.join(str(c) for c in sorted(counts))} samples",
            note="every array needs the same number",
        )
    return Group(inputs, targets, expected or None)


def _whole(values: NDArray[Any], tensor: TensorSpec, spec: ModelSpec) -> NDArray[Any]:
    """Return [N, *the whole shape]: of a graph that takes no batches a sample may lack a first dimension of 1."""
    if spec.batched or not tensor.shape or values.ndim != len(tensor.shape):
        return values
    first = tensor.shape[0]
    one = first == 1 if isinstance(first, int) else first.min <= 1
    return values[:, None] if one else values


def _as_text(path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return text as one type, whichever of numpy's it has: objects of str, as onnxruntime gives it."""
    try:
        return texts.as_str(values) if texts.is_text(values) else values
    except UnicodeDecodeError as error:
        raise SampleError(f"{name} in {path} is text that is not UTF-8", note=str(error)) from error


def _check(path: Path, name: str, values: NDArray[Any], tensor: TensorSpec, spec: ModelSpec) -> None:
    if values.dtype != tensor.dtype:
        raise SampleError(f"{name} in {path} is {_kind(values.dtype)}", note=f"the spec says {_kind(tensor.dtype)}")
    wanted = tensor.shape[1:] if spec.batched else tensor.shape
    if values.ndim != len(wanted) + 1 or not all(
        d.min <= size <= d.max if isinstance(d, DynamicDim) else size == d
        for d, size in zip(wanted, values.shape[1:], strict=True)
    ):
        said = tensor.said if spec.batched else f"samples, each {tensor.said}"
        raise SampleError(f"{name} in {path} has shape {list(values.shape)}", note=f"the spec: {said}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise SampleError(f"{name} in {path} has inf or nan in it")


def _check_expected(path: Path, expected: Mapping[str, NDArray[Any]], spec: ModelSpec) -> None:
    outputs = {tensor.name: tensor for tensor in spec.outputs}
    for name, values in expected.items():
        if name not in outputs:
            raise SampleError(f"{path} expects the output {name!r}", note=f"the spec has {_listed(outputs)}")
        tensor = outputs[name]
        wanted = tensor.shape[1:] if spec.batched else tensor.shape
        sizes = zip(wanted, values.shape[1:], strict=False)
        if values.ndim != len(wanted) + 1 or any(isinstance(d, int) and size != d for d, size in sizes):
            raise SampleError(
                f"expected.{name} in {path} has shape {list(values.shape)}", note=f"the spec: {tensor.said}"
            )
        if values.dtype.kind != np.dtype(tensor.dtype).kind:
            raise SampleError(
                f"expected.{name} in {path} is {_kind(values.dtype)}", note=f"the spec says {_kind(tensor.dtype)}"
            )


def _checked_targets(path: Path, labels: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """Return the labels as the spec's metric takes them."""
    if spec.metric is None:
        raise SampleError(
            f"{path} has labels, and the task {spec.task} has no metric that would look at them",
            hint='name one in the spec, metric = "squared_error" for one; or leave the labels out',
        )
    if spec.task in ("classification", "ctc"):
        return _class_indices(path, labels, spec)
    if labels.dtype.kind not in "iufb" or not labels.ndim:
        raise SampleError(f"labels in {path} are {labels.dtype} {list(labels.shape)}", note="numbers [N, …] are needed")
    flat = labels.reshape(len(labels), -1)
    if spec.metric.name == "auc" and (flat.shape[1] != 1 or not np.isin(flat, (0, 1)).all()):
        raise SampleError(f"labels in {path} are not 0 and 1, one a sample", note=f"they are {list(labels.shape)}")
    if spec.metric.name.startswith("recall_at_"):
        _check_roles(path, flat, spec.metric.name)
    return labels


def _check_roles(path: Path, labels: NDArray[Any], metric: str) -> None:
    if labels.shape[1] > 2 or (labels.shape[1] == 2 and not np.isin(labels[:, 1], (0, 1)).all()):
        raise SampleError(
            f"labels in {path} are {list(labels.shape)}",
            note=f"{metric} takes one a sample, and samples with the same one belong together; or two, the second 1 of "
            "a query and 0 of a document",
        )


def _class_indices(path: Path, labels: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    if labels.dtype.kind not in "iu" or labels.ndim != (2 if spec.task == "ctc" else 1):
        raise SampleError(
            f"labels in {path} are {labels.dtype} {list(labels.shape)}",
            note="class indices [N], or for the task ctc [N, length] padded with -1",
            hint=_as_indices(labels, spec),
        )
    classes = next(tensor.shape[-1] for tensor in spec.outputs if tensor.name == spec.answer_output)
    least = -1 if spec.task == "ctc" else 0
    if isinstance(classes, int) and labels.size and not (least <= labels.min() and labels.max() < classes):
        raise SampleError(
            f"labels in {path} reach from {labels.min()} to {labels.max()}",
            note=f"{spec.answer_output} has {classes} classes, counted from 0",
            hint="labels - 1" if labels.min() == 1 and labels.max() == classes else None,
        )
    return labels.astype(np.int64)


def _as_indices(labels: NDArray[Any], spec: ModelSpec) -> str | None:
    """Return the call that makes class indices of what labels often are instead."""
    if labels.dtype.kind in "OSU" and spec.labels:
        return "numpy.array([names.index(label) for label in labels]), names as the spec's labels"
    if labels.ndim == 2 and spec.task == "classification":
        return "labels.argmax(axis=1)" if labels.shape[1] > 1 else "labels[:, 0]"
    return "labels.astype(int)" if labels.dtype.kind in "fb" else None


def _check_classes(paths: Sequence[Path], split: Split, spec: ModelSpec) -> None:
    """See that the halves have the same classes: sorted by their labels, as many datasets are, they have others."""
    why = "one half calibrates, the other is held out"
    shuffle = "shuffle: order = numpy.random.default_rng(0).permutation(N), and every array[order]"
    needs_both = spec.metric is not None and spec.metric.name == "auc"
    first, second = ({int(v) for part in half.targets or () for v in part.ravel()} for half in split.halves())
    for which, found in (("first", first), ("second", second)):
        if len(found) == 1 and (needs_both or first != second):
            raise SampleError(
                f"every label of the {which} half of {_named(paths)} is {found.pop()}",
                note=f"{why}: {'auc needs yes and no' if needs_both else 'the classes belong'} in both",
                hint=shuffle,
            )
    if first != second and any(_is_sorted(group.targets) for group in split.groups):
        alone = sorted(first ^ second)
        raise SampleError(
            f"the samples in {_named(paths)} lie sorted by their labels",
            note=f"{why}: {len(alone)} of {len(first | second)} classes are in one of them alone, as {alone[0]} is",
            hint=shuffle,
        )


def _is_sorted(labels: NDArray[Any] | None) -> bool:
    """Tell whether equal labels lie side by side, of so many samples that it is no chance."""
    if labels is None:
        return False
    flat = labels.ravel()
    classes, blocks = len(np.unique(flat)), 1 + int((flat[1:] != flat[:-1]).sum())
    return 1 < classes == blocks and len(flat) >= _A_CLASS * classes


def _kind(dtype: object) -> str:
    return "text" if str(dtype) == "object" else str(dtype)


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _listed(names: Iterable[str] | Batch) -> str:
    return ", ".join(names) or "nothing"
