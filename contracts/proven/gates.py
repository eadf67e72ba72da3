"""One proof: a figure, its limit, and whether it held."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# What begins the name of a gate in versions that were published before gates had ids, and the id it has now.
# Of a prefix that ends with a space the rest of the name follows the id.
_IDS = {
    "accuracy drop": "metric_drop",
    "agreement": "agreement",
    "compiled by TensorRT": "compiled",
    "computed in": "computed_share",
    "contract: ": "contract",
    "inf or nan": "finite",
    "inspected: computed in": "inspected_share",
    "largest difference of ": "largest_difference",
    "loads in the server's TensorRT": "server_tensorrt",
    "made": "made",
    "model.": "worth_it",
    "Q/DQ not signed and symmetric": "qdq_symmetric",
    "quantized": "quantized",
}


@dataclass(frozen=True)
class Gate:
    """One proof: a figure, its limit, and whether it held."""

    name: str  # for people, who read it in tables; whoever looks for a gate asks for its id
    figure: float
    limit: float
    bound: Literal["at most", "at least"]
    detail: str = ""  # what the figure does not say: which tensors, which layers, which file
    id: str = ""  # "agreement", "largest_difference:logits"
    needed: int | None = None  # it failed, and its samples are too few to tell: about so many would

    def __post_init__(self) -> None:
        known = self.id or _id_of(self.name)
        # As it was called while accuracy was the only metric.
        object.__setattr__(self, "id", "metric_drop" if known == "accuracy_drop" else known)

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limit; one that is no number never is."""
        return self.figure <= self.limit if self.bound == "at most" else self.figure >= self.limit

    def __str__(self) -> str:
        said = f"{self.name} {self.figure:.5g} (limit: {self.bound} {self.limit:g})"
        said = f"{said}: {self.detail}" if self.detail else said
        return f"{said}; too few samples to tell, about {self.needed:,} would" if self.needed else said


def find_gate(gates: Iterable[Gate], gate_id: str) -> Gate | None:
    """Return the first gate with this id, or None: a variant without labels has no accuracy to lose."""
    return next((gate for gate in gates if gate.id == gate_id), None)


def _id_of(name: str) -> str:
    for prefix, kind in _IDS.items():
        if name.startswith(prefix):
            return f"{kind}:{name.removeprefix(prefix)}" if prefix.endswith(" ") else kind
    return name
