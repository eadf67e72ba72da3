"""Gradient-boosted trees: LightGBM's and XGBoost's, and the graph of `ai.onnx.ml` that onnxruntime serves them as.

Categories reach both as numbers. XGBoost's own splits of categories become graphs without an error that are wrong in
nearly every row. And LightGBM compares with float64: a threshold that is rounded to the nearest float32 may come to lie
above a value that was above it, which so takes the other branch. It is rounded down before it is converted.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from contracts.samples import Batch, Split
from training.families.flights.features import serving

# Below every number that there is: to a tree a number that is missing is one more branch.
MISSING = np.float32(-9999)
_ENSEMBLE = "TreeEnsembleClassifier"
_THREADS = 0  # all; the library's own default

_GRAPH = """
<ir_version: 10, opset_import: ["": 18, "ai.onnx.ml": 3]>
trees (int32[batch, 3] categories, float[batch, NUMBERS] numbers) => (float[batch, 1] probability) {
  missing = IsNaN(numbers)
  filled = Where(missing, below, numbers)
  coded = Cast<to = 1>(categories)
  features = Concat<axis = 1>(coded, filled)
  label, both = ai.onnx.ml.TreeEnsembleClassifier(features)
  probability = Gather<axis = 1>(both, late)
}
"""


class _Trees:
    """What both libraries' models have in common."""

    library: str
    model: Any = None

    def predict(self, inputs: Batch) -> Batch:
        """Return what the library itself answers."""
        probability = self._answer(_rows(inputs)).reshape(-1, 1)
        return {"probability": probability.astype(np.float32)}

    def write_graph(self, path: Path) -> None:
        """Write the trees as an ONNX graph."""
        model = onnx.parser.parse_model(_GRAPH.replace("NUMBERS", str(len(serving.NUMBERS))))
        [ensemble] = [node for node in model.graph.node if node.op_type == _ENSEMBLE]
        [converted] = [node for node in self._converted().graph.node if node.op_type == _ENSEMBLE]
        ensemble.attribute.extend(converted.attribute)
        constants = {"below": MISSING, "late": np.array([1], np.int64)}
        model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
        onnx.save(model, path)

    def _answer(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        raise NotImplementedError

    def _converted(self) -> onnx.ModelProto:
        raise NotImplementedError


class LightGBM(_Trees):
    """LightGBM's boosting (Ke et al. 2017).

    Args:
        trees: At most; as many are kept as judge the validation split best.
        leaves: Of a tree.
        rate: The learning rate.
        fewest: Flights of a leaf.
        share: Of the flights and of the columns that each tree is grown on.
        l2: The penalty on the values of leaves.
    """

    library = "LightGBM"

    def __init__(
        self,
        trees: int = 200,
        leaves: int = 31,
        rate: float = 0.05,
        fewest: int = 200,
        share: float = 0.7,
        l2: float = 10.0,
    ) -> None:
        self.trees = trees
        self.parameters = {
            "objective": "binary",
            "metric": "auc",
            "num_leaves": leaves,
            "learning_rate": rate,
            "min_data_in_leaf": fewest,
            "feature_fraction": share,
            "bagging_fraction": share,
            "bagging_freq": 1,
            "lambda_l2": l2,
            "verbosity": -1,
            "num_threads": _THREADS,
            "deterministic": True,
            "force_row_wise": True,
        }

    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Grow the trees."""
        import lightgbm

        data, judge = (lightgbm.Dataset(*_labelled(split)) for split in (train, validation))
        keep = lightgbm.early_stopping(self.trees, first_metric_only=True, verbose=False)
        self.model = lightgbm.train(
            {**self.parameters, "seed": seed}, data, self.trees, valid_sets=[judge], callbacks=[keep]
        )

    def state(self) -> Mapping[str, Any]:
        """Return the trees as LightGBM's text."""
        return {"model": self.model.model_to_string(num_iteration=self.model.best_iteration or None)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        import lightgbm

        self.model = lightgbm.Booster(model_str=state["model"])

    def _answer(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        found: NDArray[Any] = self.model.predict(rows)
        return found

    def _converted(self) -> onnx.ModelProto:
        import lightgbm
        from onnxmltools import convert_lightgbm

        rounded = lightgbm.Booster(model_str=with_thresholds_rounded_down(self.state()["model"]))
        return _as_graph(convert_lightgbm, rounded, self.model.num_feature(), zipmap=False)


class XGBoost(_Trees):
    """XGBoost's boosting (Chen and Guestrin 2016). Its thresholds are float32 as they are.

    Args:
        trees: At most; as many are kept as judge the validation split best.
        depth: Of a tree.
        rate: The learning rate.
        fewest: The least sum of second derivatives in a leaf.
        share: Of the flights and of the columns that each tree is grown on.
        l2: The penalty on the values of leaves.
    """

    library = "XGBoost"

    def __init__(
        self,
        trees: int = 150,
        depth: int = 6,
        rate: float = 0.1,
        fewest: float = 20.0,
        share: float = 0.7,
        l2: float = 10.0,
    ) -> None:
        self.trees = trees
        self.parameters = {
            "objective": "binary:logistic",
            "eval_metric": "auc",
            "tree_method": "hist",
            "max_depth": depth,
            "eta": rate,
            "min_child_weight": fewest,
            "subsample": share,
            "colsample_bytree": share,
            "reg_lambda": l2,
            "nthread": _THREADS,
        }

    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Grow the trees."""
        import xgboost

        data, judge = (xgboost.DMatrix(rows, late) for rows, late in map(_labelled, (train, validation)))
        found = xgboost.train(
            {**self.parameters, "seed": seed}, data, self.trees, evals=[(judge, "val")],
            early_stopping_rounds=self.trees, verbose_eval=False,
        )  # fmt: skip
        self.model = found[: found.best_iteration + 1]

    def state(self) -> Mapping[str, Any]:
        """Return the trees as XGBoost's JSON."""
        return {"model": self.model.save_raw("json").decode()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        import xgboost

        self.model = xgboost.Booster()
        self.model.load_model(bytearray(state["model"].encode()))

    def _answer(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        import xgboost

        found: NDArray[Any] = self.model.predict(xgboost.DMatrix(rows))
        return found

    def _converted(self) -> onnx.ModelProto:
        from onnxmltools import convert_xgboost

        return _as_graph(convert_xgboost, self.model, self.model.num_features())


def with_thresholds_rounded_down(model: str) -> str:
    """Return LightGBM's text with every threshold the next float32 at or below it.

    No float32 lies between the two: each takes the branch that it took.
    """
    without_sizes = re.sub(r"^tree_sizes=.*\n", "", model, flags=re.MULTILINE)  # in bytes, which change
    return re.sub(r"^threshold=(.*)$", _rounded_down, without_sizes, flags=re.MULTILINE)


def _rounded_down(found: re.Match[str]) -> str:
    exact = np.array(found[1].split(), np.float64)
    near = exact.astype(np.float32)
    down = np.where(near.astype(np.float64) > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return "threshold=" + " ".join(repr(float(value)) for value in down)


def _as_graph(convert: Any, model: Any, columns: int, **options: Any) -> onnx.ModelProto:
    from onnxmltools.convert.common.data_types import FloatTensorType

    found: onnx.ModelProto = convert(
        model, initial_types=[("features", FloatTensorType([None, columns]))], target_opset=15, **options
    )
    return found


def _rows(inputs: Batch) -> NDArray[np.float32]:
    """Return [N, 3 + numbers] as the graph has it."""
    numbers = np.where(np.isnan(inputs["numbers"]), MISSING, inputs["numbers"])
    return np.concatenate([inputs["categories"].astype(np.float32), numbers], axis=1)


def _labelled(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows = np.concatenate([_rows(group.inputs) for group in split.groups])
    return rows, np.concatenate([group.targets for group in split.groups if group.targets is not None])
