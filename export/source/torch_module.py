"""An export source from a module of plain PyTorch: a callable that makes it, its weights, and samples.

  python -m export --torch package.module:make_model --weights FILE --inputs SAMPLES.npz

The module is the reference: every graph, the FP32 one too, is held against what it answers itself.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from contracts.manifest import Source
from contracts.samples import Batch, Split
from contracts.spec import DynamicDim, ModelSpec
from export.errors import ModuleError
from export.proof.runners import Runner
from export.source import first_spec
from export.source.base import ExportSource
from export.source.factory import INSTALLED, make_module, prepare, said, where
from export.source.pytorch import graph_from_module, module_runner
from export.source.samples import fingerprint, read_samples
from export.source.served_module import shapes_of
from export.source.weights import load_weights

Say = Callable[[str], None]

_LOOKED_AT = 4  # samples of a group that are asked more than once
# Two answers to the same sample that are further apart than this share of the largest value are two answers. Batches
# of different sizes are added up in another order, which costs some 1e-6 of it.
_SAME = 1e-3


def from_torch(
    factory: str,
    weights: Path | None,
    samples: Sequence[Path],
    spec: ModelSpec | None,
    calibration_samples: int,
    say: Say = lambda line: None,
    *,
    ema: bool | None = None,
) -> ExportSource:
    """Make an export source of a module: half of its samples calibrate, half are held out.

    Args:
        factory: "package.module:callable"; the callable gives an nn.Module.
        weights: What goes into it; None: the callable has loaded them.
        samples: Files .npz with one array [N, …] an input; one for each length, where it varies.
        spec: None: a first one is written into the working directory, from the module and the samples.
        say: Told what was not taken as it is, and the first spec.
        ema: Whether the averaged weights are meant, of a file that has others too.

    Raises:
        ModuleError: the module or its weights cannot be had, or it is not what the spec says.
        SpecError: no spec can be made of it.
        SampleError: the samples do not fit the spec, or are too few.
    """
    module = make_module(factory)
    if weights is not None:
        load_weights(module, weights, say, ema=ema)
    prepare(module, say)
    if spec is None:
        spec = first_spec.write(module, factory, samples, Path.cwd(), say)
    split = read_samples(samples, spec)
    check(module, spec, split)
    origin = f"{factory}, {weights.name}" if weights else factory
    example = split.groups[0].inputs
    if not spec.batched:
        example = {name: values[0] for name, values in example.items()}
    first, second = split.halves()
    # What the samples expect is the reference where they do: made by another version of the module, perhaps.
    compared_with = "the framework, as the samples have it," if second.expected else f"the PyTorch module of {factory}"
    return ExportSource(
        spec=spec,
        origin=Source(
            file=origin,
            sha256=_digest(module, spec, split),
            data_fingerprint=fingerprint(samples),
            mlflow_run_id=None,
            git_commit=None,
            git_dirty=None,
            compared_with=compared_with,
        ),
        reference=lambda: module_runner(module, spec),
        module=lambda: module,
        write_graph=lambda path: graph_from_module(module, spec, path, example),
        calibration=first.first(calibration_samples),
        search=first,
        held_out=second,
    )


def check(module: nn.Module, spec: ModelSpec, split: Split) -> None:
    """See that a module gives what the spec says, the same twice, and to each sample whatever else is in its batch.

    Raises:
        ModuleError: it does not.
    """
    run = module_runner(module, spec)
    for group in split.groups:
        inputs = group.take(slice(min(_LOOKED_AT, spec.max_batch) if spec.batched else 1)).inputs
        if not spec.batched:
            inputs = {name: values[0] for name, values in inputs.items()}
        answers = _answers(run, inputs)
        _check_outputs(answers, inputs, spec)
        again = _answers(run, inputs)
        if other := _apart(answers, again):
            raise ModuleError(
                f"the module answers the same samples differently the second time: {other}",
                hint="it draws random numbers, or keeps something from one call to the next: dropout by a function "
                "needs training=self.training",
            )
        if spec.batched:
            _check_rows(run, inputs, answers, spec)


def _answers(run: Runner, inputs: Batch) -> Batch:
    try:
        return run(inputs)
    except ModuleError:
        raise
    except Exception as error:  # their code
        raise ModuleError(
            f"the module fails on the samples: {said(error)}",
            note="; ".join(filter(None, (shapes_of(inputs), where(error)))),
        ) from error


def _check_outputs(answers: Batch, inputs: Batch, spec: ModelSpec) -> None:
    count = len(next(iter(inputs.values()))) if spec.batched else None
    for tensor in spec.outputs:
        found = answers[tensor.name]
        wanted = [count if d is tensor.shape[0] and spec.batched else d for d in tensor.shape]
        fits = len(found.shape) == len(wanted) and all(
            d.min <= size <= d.max if isinstance(d, DynamicDim) else size == d
            for d, size in zip(wanted, found.shape, strict=True)
        )
        if not fits or found.dtype != tensor.dtype:
            shape = ", ".join(f"{d.min}–{d.max}" if isinstance(d, DynamicDim) else str(d) for d in wanted)
            raise ModuleError(
                f"the module gives {tensor.name} as {found.dtype} {list(found.shape)}",
                note=f"the spec says {tensor.dtype} [{shape}]",
                hint="mend the spec, or the module",
            )


def _check_rows(run: Runner, inputs: Batch, answers: Batch, spec: ModelSpec) -> None:
    """Ask for each sample alone: Triton puts requests of different clients into one batch."""
    for at in range(len(next(iter(inputs.values())))):
        alone = _answers(run, {name: values[at : at + 1] for name, values in inputs.items()})
        for name, values in alone.items():
            if values.shape != answers[name][at : at + 1].shape:
                raise ModuleError(
                    f"of one sample alone {name} has shape {list(values.shape)}, of {len(answers[name])} "
                    f"{list(answers[name].shape)}",
                    hint="squeeze() takes the batch away when it is 1: squeeze(-1)",
                )
        if other := _apart({name: values[at : at + 1] for name, values in answers.items()}, alone):
            raise ModuleError(
                f"the answer to a sample depends on what else is in its batch: {other}",
                note="Triton puts requests of different clients into one batch",
                hint="look for what goes over dimension 0 (softmax, mean, normalisation), or serve it sample by "
                "sample: batch = false in the spec",
            )


def _apart(one: Batch, other: Batch) -> str:
    """Say which output differs, and by how much; "" where none does."""
    for name, values in one.items():
        a, b = values.astype(np.float64), other[name].astype(np.float64)
        if a.shape != b.shape:
            return f"{name} {list(a.shape)} and {list(b.shape)}"
        scale = float(np.abs(a).max(initial=0.0)) or 1.0
        # What is not finite is told of later; an index or a flag that flips between equals is no other answer.
        if values.dtype.kind == "f" and (difference := float(np.nanmax(np.abs(a - b), initial=0.0))) > _SAME * scale:
            return f"{name} by {difference:.3g}"
    return ""


def _digest(module: nn.Module, spec: ModelSpec, split: Split) -> str:
    """Return what tells a module from another: its weights, its code, and what it answers to a sample of each group."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(name.encode() + tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for path in _sources():
        digest.update(path.read_bytes())
    run = module_runner(module, spec)
    for group in split.groups:
        sample = {name: values[:1] if spec.batched else values[0] for name, values in group.inputs.items()}
        for values in run(sample).values():
            digest.update(values.tobytes())
    return digest.hexdigest()


def _sources() -> list[Path]:
    """List the files of Python that were imported and are not installed: the module's, and what it uses."""
    files = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    paths = sorted(Path(file) for file in files if file.endswith(".py") and not file.startswith(INSTALLED))
    return [path for path in paths if path.is_file()]  # PyTorch has modules whose files are not there
