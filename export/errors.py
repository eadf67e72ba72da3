"""Errors of the export stage.

ExportError
├── GraphError      PyTorch or the quantizer could not make a graph
├── EngineError     TensorRT refused a graph, or is not there
└── RefusedError    no variant passed its gates; nothing is published
"""

from contracts.errors import ProjectError


class ExportError(ProjectError):
    """The export stage cannot go on."""


class GraphError(ExportError):
    """A graph could not be made from the checkpoint."""


class EngineError(ExportError):
    """TensorRT refused a graph, or is not there."""


class RefusedError(ExportError):
    """No variant passed its gates; nothing is published."""
