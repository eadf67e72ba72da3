"""Errors of the export stage.

ExportError
├── GraphError      PyTorch or the quantizer could not make a graph
├── SampleError     representative inputs that do not fit the spec, or are too few
├── ConfigError     a model's config.pbtxt is missing or is none
├── EngineError     TensorRT or its GPU is not there
│   └── CompileError    TensorRT refused a graph
├── RegistryError   MLflow's store does not answer, or has no such model, run or checkpoint
└── RefusedError    no variant passed its gates; nothing is published
"""

from contracts.errors import ProjectError


class ExportError(ProjectError):
    """The export stage cannot go on."""


class GraphError(ExportError):
    """A graph could not be made from the checkpoint."""


class SampleError(ExportError):
    """Representative inputs are missing, do not fit the spec, or are too few."""


class ConfigError(ExportError):
    """A model's config.pbtxt is missing or is no model configuration."""


class EngineError(ExportError):
    """TensorRT or the GPU it needs is not there."""


class CompileError(EngineError):
    """TensorRT cannot parse or compile a graph."""


class RegistryError(ExportError):
    """MLflow's store does not answer, or has no such model, run or checkpoint."""


class RefusedError(ExportError):
    """No variant passed its gates; nothing is published."""
