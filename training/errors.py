"""Errors of the training stage.

TrainingError
├── DataError          a dataset that cannot be found, fetched or trusted
│   └── GateError      data that is not what is expected of it
├── CheckpointError    a checkpoint that is missing, damaged or of another family
├── FamilyError        a family that cannot be made
├── FeatureError       features that cannot be had, or that would lie: computed with the future, lost, doubled
└── SweepError         a search that cannot begin or go on
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


class SweepError(TrainingError):
    """A search cannot begin or go on."""


class FamilyError(TrainingError):
    """A new family cannot be made."""


class FeatureError(TrainingError):
    """Features cannot be had, or would lie: they were computed with the future, or rows were lost or doubled."""
