"""Errors of the training stage.

TrainingError
├── DataError          a dataset that cannot be found, fetched or trusted
│   └── GateError      data that is not what is expected of it
├── CheckpointError    a checkpoint that is missing, damaged or of another family
└── FamilyError        a family that cannot be made
"""

from contracts.errors import ProjectError


class TrainingError(ProjectError):
    """The training stage cannot go on."""


class DataError(TrainingError):
    """A dataset cannot be found, fetched or trusted."""


class GateError(DataError):
    """Data is not what is expected of it: the pipeline stops."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged or of another family."""


class FamilyError(TrainingError):
    """A new family cannot be made."""
