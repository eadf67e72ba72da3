"""What is tried: a few values of each setting, for every model that a request goes through."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from benchmarks.limit import cores
from benchmarks.tuning.settings_of_model import Configured, Tunable

# With a queue policy Triton 2.51 may miss that an instance is done, and sleep for 0.5 s unless another one wakes it.
FEWEST_WITH_POLICY = 3
_DELAYS_US = (0, 100, 250, 500, 1000, 2000)
_QUEUES = (16, 32, 64, 128, 256)
_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Space:
    """The models, and the values of each of their settings."""

    models: Mapping[str, Configured]

    @property
    def values(self) -> dict[str, tuple[Any, ...]]:
        """{"MODEL.setting": its values}; today's are among them."""
        found: dict[str, tuple[Any, ...]] = {}
        for model, configured in self.models.items():
            for name, values in values_of(configured).items():
                now = _key(getattr(configured.settings, name))
                found[f"{model}.{name}"] = tuple(dict.fromkeys([*values, now]))
        return found

    def today(self) -> dict[str, Any]:
        """Return the values of today's configurations."""
        return {name: _key(getattr(self.models[name.rpartition(".")[0]].settings, name.rpartition(".")[2]))
                for name in self.values}  # fmt: skip

    def suggested(self, trial: optuna.Trial) -> dict[str, Tunable]:
        """Draw settings for every model."""
        return self.settings({name: trial.suggest_categorical(name, list(v)) for name, v in self.values.items()})

    def settings(self, chosen: Mapping[str, Any]) -> dict[str, Tunable]:
        """Make settings of values by name."""
        found = {}
        for model, configured in self.models.items():
            own = {name.rpartition(".")[2]: v for name, v in chosen.items() if name.rpartition(".")[0] == model}
            if "preferred" in own:
                own["preferred"] = tuple(int(size) for size in str(own["preferred"]).split(",") if size)
            found[model] = Tunable(**{**vars(configured.settings), **own})
        return found


def values_of(configured: Configured) -> dict[str, list[Any]]:
    """Return {setting: what is tried}, of those that the model has; none: there is nothing to tune."""
    settings, most = configured.settings, 2 * cores() + 1
    found: dict[str, list[Any]] = {}
    if settings.instances is not None:
        least = FEWEST_WITH_POLICY if configured.has_policy else 1
        found["instances"] = [*range(least, max(most, least + 1) + 1)]
    if settings.threads is not None and cores() > 1:
        found["threads"] = sorted({1, 2, cores()})
    if settings.preferred is not None and configured.max_batch_size > 1:
        sizes = [size for size in _SIZES if size <= configured.max_batch_size]
        found["preferred"] = ["", *(str(size) for size in sizes)]
    if settings.delay_us is not None:
        found["delay_us"] = [*_DELAYS_US]
    if settings.queue is not None:
        found["queue"] = [*_QUEUES]
    return {name: values for name, values in found.items() if not configured.only or name in configured.only}


def _key(value: Any) -> Any:
    """Optuna's categories are numbers and text."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
