"""Errors of the export stage.

ExportError
├── GraphError      PyTorch or the quantizer could not make a graph
├── ModuleError     a PyTorch module or its weights cannot be had, or it is not what can be served
├── SampleError     representative inputs that do not fit the spec, or are too few
├── StepFileError   a Python step of one's own that is no step, or is there already
├── EngineError     TensorRT or its GPU is not there
│   └── CompileError    TensorRT refused a graph
├── StepError       a Python step of an ensemble does not run here
├── RegistryError   MLflow's store does not answer, or has no such model, run or checkpoint
└── RefusedError    no variant passed its gates; nothing is published
"""

from contracts.errors import ProjectError


class ExportError(ProjectError):
    """The export stage cannot go on."""


class GraphError(ExportError):
    """A graph could not be made from the checkpoint."""


class ModuleError(ExportError):
    """A PyTorch module or its weights cannot be had, or it is not what can be served."""


class SampleError(ExportError):
    """Representative inputs are missing, do not fit the spec, or are too few."""


class StepFileError(ExportError):
    """A Python step of one's own is no step, does not fit its network, or is there already."""


class EngineError(ExportError):
    """TensorRT or the GPU it needs is not there."""


class CompileError(EngineError):
    """TensorRT cannot parse or compile a graph."""


class StepError(ExportError):
    """A Python step of an ensemble does not run here, or refuses what it is given."""


class RegistryError(ExportError):
    """MLflow's store does not answer, or has no such model, run or checkpoint."""


class RefusedError(ExportError):
    """No variant passed its gates; nothing is published."""
