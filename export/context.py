"""What every step of one export is given: what is exported, what was asked for, and the reference's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cli.progress import Progress
from contracts import signing
from contracts.spec import PRECISIONS, Precision
from export.cache import Cache
from export.precision.search import Mode
from export.proof import engine
from export.proof.runners import Batch, length
from export.source.base import ExportSource

ENDS = ("min", "opt", "max")


@dataclass(frozen=True)
class ExportRequest:
    """What the user asked for."""

    command: str
    precisions: Sequence[Precision] = PRECISIONS
    engines: engine.BuildOptions = field(default_factory=engine.BuildOptions)
    server_tensorrt: str = engine.SERVER_TENSORRT
    search: Mode = "auto"
    search_budget_s: float = 300
    signer: signing.Signer | None = None


@dataclass(frozen=True)
class ExportContext:
    """What every step of one export is given: the source, the request, and the reference's outputs."""

    source: ExportSource
    request: ExportRequest
    cache: Cache
    progress: Progress
    reference: Mapping[str, Batch]  # {"search", "held-out", "min", "opt", "max": outputs}

    @property
    def data(self) -> list[object]:
        """What tells the data, the shapes and the task of this export from another's."""
        source, spec = self.source, self.source.spec
        sizes = [length(source.calibration), len(source.search), len(source.held_out)]
        origin = [source.origin.sha256, source.origin.data_fingerprint]
        return [origin, sizes, spec.inputs, spec.outputs, spec.task, spec.answer_output]

    @property
    def outputs(self) -> list[str]:
        """The names of the network's outputs."""
        return [tensor.name for tensor in self.source.spec.outputs]
