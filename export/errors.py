"""Errors of the export stage.

ExportError
├── GraphError      PyTorch or the quantizer could not make a graph
├── EngineError     TensorRT or its GPU is not there
│   └── CompileError    TensorRT refused a graph
└── RefusedError    no variant passed its gates; nothing is published
"""

from contracts.errors import ProjectError


class ExportError(ProjectError):
    """The export stage cannot go on."""


class GraphError(ExportError):
    """A graph could not be made from the checkpoint."""


class EngineError(ExportError):
    """TensorRT or the GPU it needs is not there."""


class CompileError(EngineError):
    """TensorRT cannot parse or compile a graph."""


class RefusedError(ExportError):
    """No variant passed its gates; nothing is published."""
