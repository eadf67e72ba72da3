"""What every step of one export is given: what is exported, what was asked for, and the reference's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cli.progress import Progress
from contracts import signing
from contracts.engines.plans import SERVER_TENSORRT
from contracts.judging import tasks
from contracts.samples import Batch
from contracts.spec import USUAL_PRECISIONS, Precision
from export.cache import Cache
from export.precision.search import Mode
from export.proof import engine, enough
from export.proof.gates import Judged
from export.source.base import ExportSource

ENDS = ("min", "opt", "max")


@dataclass(frozen=True)
class ExportRequest:
    """What the user asked for."""

    command: str
    precisions: Sequence[Precision] = USUAL_PRECISIONS
    engines: engine.BuildOptions = field(default_factory=engine.BuildOptions)
    server_tensorrt: str = SERVER_TENSORRT
    search: Mode = "auto"
    search_budget_s: float = 300
    signer: signing.Signer | None = None
    serve: bool = True  # publish only what a Triton has served


@dataclass(frozen=True)
class ExportContext:
    """What every step of one export is given: the source, the request, and the reference's outputs."""

    source: ExportSource
    request: ExportRequest
    cache: Cache
    progress: Progress
    # {"search", "held-out", "min", "opt", "max": its outputs, a group's each (without a batch, a sample's each)}
    reference: Mapping[str, Sequence[Batch]]
    _judged: dict[str, Judged] = field(default_factory=dict, init=False, repr=False)

    @property
    def data(self) -> list[object]:
        """What tells the data, the shapes and the task of this export from another's."""
        source, spec = self.source, self.source.spec
        sizes = [len(source.calibration), len(source.search), len(source.held_out)]
        origin = [source.origin.identity, source.origin.data_fingerprint]
        how = [spec.task, spec.answer_output, spec.threshold, spec.batched]
        return [origin, sizes, spec.inputs, spec.outputs, *how]

    def judged(self, name: str) -> Judged:
        """Return how the reference answers the split "held-out" or "search", and what is true of it."""
        if name not in self._judged:
            spec, split = self.source.spec, {"held-out": self.source.held_out, "search": self.source.search}[name]
            predicted, targets, scores, also = tasks.predicted(self.reference[name], spec), split.targets, None, {}
            if spec.metric is not None and targets is not None:
                scores = spec.metric.scores(predicted, targets)
                also = {metric.name: metric.scores(predicted, targets) for metric in spec.also}
            self._judged[name] = Judged(predicted.answers, scores, targets, also, split.segments)
        return self._judged[name]

    @property
    def warnings(self) -> list[str]:
        """What the held-out samples do not show although every figure looks well."""
        source = self.source
        return [*enough.warnings(source.spec, self.request.precisions, self.judged("held-out"), source.held_out)]

    @property
    def outputs(self) -> list[str]:
        """The names of the network's outputs."""
        return [tensor.name for tensor in self.source.spec.outputs]
