"""An export source from a checkpoint of a family, with the splits of the data that it was trained on."""

from functools import cache

from contracts.manifest import Source
from export.errors import SampleError
from export.source.base import ExportSource
from export.source.pytorch import graph_from_module, module_runner
from training.checkpoints import Checkpoint
from training.families import Family

_PARTS = {"train": "training", "val": "validation", "test": "test"}  # as the data has them, and as people do


def from_checkpoint(family: Family, checkpoint: Checkpoint, calibration_samples: int) -> ExportSource:
    """Make an export source of a checkpoint, with the splits of the data it was trained on.

    Raises:
        SampleError: the data is not what it was trained on.
    """
    spec, lineage = family.spec, checkpoint.lineage
    try:
        data = family.data(**checkpoint.data)
    except TypeError as error:
        raise SampleError(
            "the data takes no longer what the checkpoint was trained with",
            note=f"{error}; arguments in the checkpoint: {', '.join(checkpoint.data)}",
            hint="train again, or restore the family's data.py",
        ) from error
    if data.fingerprint != lineage.data_fingerprint:
        raise SampleError(
            "the data is not what the checkpoint was trained on",
            note=f"fingerprint {data.fingerprint[:12]}…, trained on {lineage.data_fingerprint[:12]}…",
            hint="held-out samples may have been trained on: restore the data and its split, or train again",
        )
    model, fitted = checkpoint.module, checkpoint.estimator is not None
    parts = {part: data.split(part) for part in _PARTS}
    return ExportSource(
        spec=spec,
        origin=Source(
            file=checkpoint.path.name,
            sha256=checkpoint.sha256,
            data_fingerprint=lineage.data_fingerprint,
            mlflow_run_id=lineage.mlflow_run_id,
            git_commit=lineage.git_commit,
            git_dirty=lineage.git_dirty,
            compared_with=f"{model.library}, with the model in the checkpoint,"
            if fitted
            else "the PyTorch module in the checkpoint",
            weights=checkpoint.weights,
        ),
        reference=lambda: model.predict if fitted else module_runner(model.served(), spec),
        module=None if fitted else model.served,
        write_graph=model.write_graph if fitted else lambda path: graph_from_module(model.served(), spec, path),
        calibration=parts["train"].first(calibration_samples),
        search=parts["val"],
        held_out=parts["test"],
        splits={name: len(parts[part]) for part, name in _PARTS.items()},
        raw_examples=getattr(data, "requests", family.raw_examples),
        tables=cache(data.tables) if hasattr(data, "tables") else None,
    )
