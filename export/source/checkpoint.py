"""An export source from a checkpoint of a family, with the splits of the data that it was trained on."""

from contracts.manifest import Source
from export.errors import SampleError
from export.source.base import ExportSource
from export.source.pytorch import graph_from_module, module_runner
from training.checkpoints import Checkpoint
from training.families import Family


def from_checkpoint(family: Family, checkpoint: Checkpoint, calibration_samples: int) -> ExportSource:
    """Make an export source of a checkpoint, with the splits of the data it was trained on.

    Raises:
        SampleError: the data is not what it was trained on.
    """
    data, spec, lineage = family.data(), family.spec, checkpoint.lineage
    if data.fingerprint != lineage.data_fingerprint:
        raise SampleError(
            "the data is not what the checkpoint was trained on",
            note=f"fingerprint {data.fingerprint[:12]}…, trained on {lineage.data_fingerprint[:12]}…",
            hint="held-out samples may have been trained on: restore the data and its split, or train again",
        )
    model = checkpoint.module
    if checkpoint.estimator:
        compared_with, reference = f"{model.library}, with the model in the checkpoint,", lambda: model.predict
        write_graph = model.write_graph
    else:
        compared_with = "the PyTorch module in the checkpoint"
        reference = lambda: module_runner(model.served(), spec)  # noqa: E731
        write_graph = lambda path: graph_from_module(model.served(), spec, path)  # noqa: E731
    return ExportSource(
        spec=spec,
        origin=Source(
            file=checkpoint.path.name,
            sha256=checkpoint.sha256,
            data_fingerprint=lineage.data_fingerprint,
            mlflow_run_id=lineage.mlflow_run_id,
            git_commit=lineage.git_commit,
            git_dirty=lineage.git_dirty,
            compared_with=compared_with,
            weights=checkpoint.weights,
        ),
        reference=reference,
        module=None if checkpoint.estimator else model.served,
        write_graph=write_graph,
        calibration=data.split("train").first(calibration_samples),
        search=data.split("val"),
        held_out=data.split("test"),
        raw_examples=family.raw_examples,
    )
