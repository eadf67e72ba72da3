"""The settings of one configuration that decide its speed: read from its text, and written into it, comments kept.

What is measured is what a review is shown: a trial's configuration is the text of today with these few places changed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.errors import MeasurementError
from contracts import layout, model_config
from contracts.model_config import ModelConfig

THREADS = "intra_op_thread_count"
ONE_PROCESS = "inprocess"  # the backend that runs an ensemble's steps, so that they are no models of their own


@dataclass(frozen=True)
class Tunable:
    """The settings of one model; None: it has no such setting."""

    instances: int | None
    preferred: tuple[int, ...] | None  # batch sizes that Triton prefers; none: whatever waits
    delay_us: int | None  # that a request waits for company; None beside a queue policy, where a model may stall
    queue: int | None  # requests that may wait
    threads: int | None  # of ONNX Runtime in one call


@dataclass(frozen=True)
class Configured:
    """A configuration's text, and its settings."""

    model: str
    path: Path  # of the text
    text: str
    settings: Tunable
    max_batch_size: int
    has_policy: bool  # of its queue
    backend: str
    steps: tuple[str, ...] = ()  # of an ensemble, whichever its backend
    only: tuple[str, ...] = ()  # the settings that have an effect; none: all

    def changed(self, settings: Tunable) -> str:
        """Return the text with other settings.

        Raises:
            MeasurementError: a place in the text is not found; the settings have to be written by hand.
        """
        text, now = self.text, self.settings
        if settings.instances not in (None, now.instances):
            text = _with_instances(text, settings.instances)
        if settings.threads not in (None, now.threads):
            text = _with_parameter(text, THREADS, str(settings.threads))
        if settings.preferred is not None and settings.preferred != now.preferred:
            sizes = f"[ {', '.join(map(str, settings.preferred))} ]" if settings.preferred else ""
            text = _in_batching(text, "preferred_batch_size", r"\[[^\]]*\]|\d+", sizes)
        if settings.delay_us not in (None, now.delay_us):
            text = _in_batching(text, "max_queue_delay_microseconds", r"\d+", str(settings.delay_us or ""))
        if settings.queue not in (None, now.queue):
            text, count = re.subn(r"(max_queue_size:\s*)\d+", rf"\g<1>{settings.queue}", text)
            if count != 1:
                raise _by_hand(self.path)
        if of_text(self.model, self.path, text).settings != settings:
            raise _by_hand(self.path)
        return text


def read(model: str, folder: Path, config_name: str | None) -> Configured:
    """Read the configuration of the model in `folder` that Triton takes.

    Raises:
        ModelConfigError: it is missing, or is none.
    """
    path = model_config.chosen(folder, config_name)
    steps = model_config.steps(model_config.read(folder / model_config.FILE_NAME))
    model_config.read(path)
    return replace(of_text(model, path, path.read_text()), steps=steps)


def of_text(model: str, path: Path, text: str) -> Configured:
    """Read the settings in a configuration's text.

    Raises:
        ModelConfigError: it is none.
    """
    config = model_config.parse(text.encode(), layout.shown(path))
    batches, policy = config.HasField("dynamic_batching"), _has_policy(config)
    batching = config.dynamic_batching
    is_ensemble = bool(config.ensemble_scheduling.step) and not config.backend
    counts = [group.count or 1 for group in config.instance_group] or [1]
    found = Tunable(
        instances=None if is_ensemble or len(counts) > 1 else counts[0],
        preferred=tuple(batching.preferred_batch_size) if batches else None,
        delay_us=int(batching.max_queue_delay_microseconds) if batches and not policy else None,
        queue=int(batching.default_queue_policy.max_queue_size) or None if batches else None,
        threads=_threads(config),
    )
    return Configured(model, path, text, found, int(config.max_batch_size), policy, config.backend)


def described(settings: Mapping[str, Tunable], before: Mapping[str, Tunable]) -> list[str]:
    """Say what differs, a line each: "shirts_network: instances 3 -> 2"."""
    lines = []
    for model, own in settings.items():
        for name, now in vars(own).items():
            was = getattr(before[model], name)
            if now != was:
                lines.append(f"{model}: {name} {_shown(was)} -> {_shown(now)}")
    return lines


def _shown(value: object) -> str:
    return "none" if value in ((), None) else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _has_policy(config: ModelConfig) -> bool:
    batching = config.dynamic_batching
    return bool(batching.HasField("default_queue_policy") or batching.priority_queue_policy or batching.priority_levels)


def _threads(config: ModelConfig) -> int | None:
    if config.backend != "onnxruntime":
        return None
    text = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    return int(text) if text.isdecimal() else None


def _with_instances(text: str, count: int | None) -> str:
    changed, found = re.subn(r"(instance_group\s*\[\s*\{[^{}]*?\bcount:\s*)\d+", rf"\g<1>{count}", text)
    if found:
        return changed
    changed, found = re.subn(r"(instance_group\s*\[\s*\{)", rf"\g<1> count: {count}", text)
    return changed if found else f"{text.rstrip()}\n\ninstance_group [ {{ kind: KIND_CPU count: {count} }} ]\n"


def _with_parameter(text: str, name: str, value: str) -> str:
    pattern = rf'(key:\s*"{name}"[^{{}}]*value:?\s*\{{\s*string_value:\s*")[^"]*'
    changed, found = re.subn(pattern, rf"\g<1>{value}", text)
    added = f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'
    return changed if found else f"{text.rstrip()}\n{added}\n"


def _in_batching(text: str, name: str, pattern: str, value: str) -> str:
    """Change, add or remove a field of dynamic_batching."""
    field = rf"[ \t]*\b{name}:\s*(?:{pattern})[ \t]*\n?" if not value else rf"(\b{name}:\s*)(?:{pattern})"
    changed, found = re.subn(field, rf"\g<1>{value}" if value else "", text)
    if found or not value:
        return changed
    return re.sub(r"(dynamic_batching\s*\{)", rf"\g<1>\n  {name}: {value}\n", text, count=1)


def _by_hand(path: Path) -> MeasurementError:
    return MeasurementError(
        f"{layout.shown(path)} is written in a way that cannot be changed by itself",
        hint="one setting a line, each once, as the shipped configurations have them",
    )
