"""The baseline: a logistic regression of scikit-learn's over scaled numbers and one-hot categories."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from contracts.samples import Batch, Split
from training.families.flights.features import serving
from training.families.flights.models.scaling import Scaling
from training.families.flights.spec import SPEC

_SIZES = [len(names) for names in SPEC.vocabularies.values()]

# A category that there is not is an unknown one, and a number that is infinite is a missing one, as for the others.
_GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
logistic (int32[batch, 3] categories, float[batch, NUMBERS] numbers) => (float[batch, 1] probability) {
  shifted = Sub(numbers, mean)
  scaled = Div(shifted, deviation)
  is_nan = IsNaN(numbers)
  is_inf = IsInf(numbers)
  missing = Or(is_nan, is_inf)
  filled = Where(missing, zero, scaled)
  said = Cast<to = 1>(missing)
  dense = Concat<axis = 1>(filled, said)
  of_numbers = MatMul(dense, weights)
  not_negative = GreaterOrEqual(categories, first)
  not_beyond = Less(categories, sizes)
  known = And(not_negative, not_beyond)
  place = Where(known, categories, first)
  row = Add(place, starts)
  each = Gather<axis = 0>(table, row)
  of_categories = ReduceSum<keepdims = 1>(each, columns)
  both = Add(of_numbers, of_categories)
  logit = Add(both, bias)
  probability = Sigmoid(logit)
}
"""


class Logistic:
    """A logistic regression.

    Args:
        strength: Of the regularisation's inverse, scikit-learn's C.
        iterations: At most.
    """

    library = "scikit-learn"

    def __init__(self, strength: float = 1.0, iterations: int = 200) -> None:
        self.strength, self.iterations = strength, iterations
        self.scaling = Scaling(np.zeros(0, np.float32), np.zeros(0, np.float32))
        self.model: Any = None

    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Fit the coefficients. The solver is exact: nothing is drawn, and nothing stops early."""
        from sklearn.linear_model import LogisticRegression

        self.scaling = Scaling.of(np.concatenate([group.inputs["numbers"] for group in train.groups]))
        rows = np.concatenate([self._rows(group.inputs) for group in train.groups])
        late = np.concatenate([group.targets for group in train.groups if group.targets is not None])
        self.model = LogisticRegression(C=self.strength, max_iter=self.iterations, random_state=seed).fit(rows, late)

    def predict(self, inputs: Batch) -> Batch:
        """Return what scikit-learn itself answers."""
        return {"probability": self.model.predict_proba(self._rows(inputs))[:, 1:].astype(np.float32)}

    def write_graph(self, path: Path) -> None:
        """Write the same as an ONNX graph."""
        model = onnx.parser.parse_model(_GRAPH.replace("NUMBERS", str(len(serving.NUMBERS))))
        dense = 2 * len(self.scaling.mean)
        coefficients = self.model.coef_[0].astype(np.float32)
        constants = {
            "mean": self.scaling.mean,
            "deviation": self.scaling.deviation,
            "zero": np.float32(0),
            "weights": coefficients[:dense, None],
            "table": coefficients[dense:],
            "bias": self.model.intercept_.astype(np.float32),
            "first": np.int32(0),
            "sizes": np.array(_SIZES, np.int32),
            "starts": np.cumsum([0, *_SIZES[:-1]]).astype(np.int32),
            "columns": np.array([1], np.int64),
        }
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
        onnx.save(model, path)

    def state(self) -> Mapping[str, Any]:
        """Return what was learned, as tensors."""
        learned = {"coefficients": self.model.coef_, "intercept": self.model.intercept_, **vars(self.scaling)}
        return {name: torch.from_numpy(np.asarray(values)) for name, values in learned.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        from sklearn.linear_model import LogisticRegression

        learned = {name: tensor.numpy() for name, tensor in state.items()}
        self.scaling = Scaling(learned["mean"], learned["deviation"])
        self.model = LogisticRegression(C=self.strength, max_iter=self.iterations)
        self.model.coef_, self.model.intercept_ = learned["coefficients"], learned["intercept"]
        self.model.classes_ = np.array([0, 1])

    def _rows(self, inputs: Batch) -> NDArray[np.float64]:
        """Return [N, 2 × numbers + all categories]."""
        columns = [self.scaling.applied(inputs["numbers"])]
        for column, size in enumerate(_SIZES):
            chosen = inputs["categories"][:, column]
            place = np.where((chosen >= 0) & (chosen < size), chosen, 0)
            columns.append(np.eye(size)[place])
        return np.concatenate(columns, axis=1)
