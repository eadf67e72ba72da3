"""The models that are fitted by libraries of their own. The first is what the others are compared with."""

from collections.abc import Mapping

from training.families import Estimator
from training.families.flights.models.linear import Logistic
from training.families.flights.models.trees import LightGBM, XGBoost

ESTIMATORS: Mapping[str, type[Estimator]] = {"logistic": Logistic, "lightgbm": LightGBM, "xgboost": XGBoost}
