"""Errors of the training stage.

TrainingError
├── DataError          a dataset that cannot be found, fetched or trusted
├── CheckpointError    a checkpoint that is missing, damaged or of another family
├── SweepError         a search that cannot begin or go on
└── FamilyError        a family that cannot be made
"""

from contracts.errors import ProjectError


class TrainingError(ProjectError):
    """The training stage cannot go on."""


class DataError(TrainingError):
    """A dataset cannot be found, fetched or trusted."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged or of another family."""


class SweepError(TrainingError):
    """A search cannot begin or go on."""


class FamilyError(TrainingError):
    """A new family cannot be made."""
