"""Errors of the export stage.

ExportError
├── GraphError      a graph cannot be made, read or loaded
│   └── RunError        onnxruntime loads a graph and fails at a node of it
├── ModuleError     a PyTorch module or its weights cannot be had, or it is not what can be served
├── SampleError     representative inputs that do not fit the spec, or are too few
├── StepFileError   a Python step of one's own that is no step, or is there already
├── EngineError     TensorRT or its GPU is not there
│   └── CompileError    TensorRT refused a graph
├── StepError       a Python step of an ensemble does not run here
├── RegistryError   MLflow's store does not answer, or has no such model, run or checkpoint
├── ApprovalError   a release may not be approved, by this account or at all; or the rules for that cannot be read
└── RefusedError    no variant passed its gates; nothing is published
"""

from contracts.errors import ProjectError


class ExportError(ProjectError):
    """The export stage cannot go on."""


class GraphError(ExportError):
    """A graph could not be made, read or loaded."""


class RunError(GraphError):
    """A graph fails at a node when it is run.

    Attributes:
        node: "the node flatten (Reshape)", or what else onnxruntime names.
        reason: What it says of it.
    """

    def __init__(self, node: str, reason: str, *, note: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"onnxruntime cannot run {node}: {reason}", note=note, hint=hint)
        self.node, self.reason = node, reason


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


class ApprovalError(ExportError):
    """A release may not be approved, by this account or at all; or the rules for that cannot be read."""


class RefusedError(ExportError):
    """No variant passed its gates; nothing is published."""
