"""Which log lines are written: the level of each logger, by environment, from configs/logging.yaml."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from contracts import layout
from gateway.errors import SettingsError

FILE_VARIABLE = "GATEWAY_LOGGING_FILE"  # another file in place of configs/logging.yaml
_NAMES = ("debug", "info", "warning", "error", "critical")


def read(environment: str, own: str | None = None) -> Mapping[str, int]:
    """Return {logger: level} of an environment: what stands under it over what stands for all.

    Args:
        own: The level of the gateway's own lines, where a setting says it: it stands over both.

    Raises:
        SettingsError: the file cannot be read, or has something else in it.
    """
    path = Path(os.environ.get(FILE_VARIABLE) or layout.ROOT / "configs" / "logging.yaml")
    try:
        whole = yaml.safe_load(path.read_text()) or {}
        chosen = {**whole.pop("levels"), **((whole.pop("environments", None) or {}).get(environment) or {})}
    except FileNotFoundError:
        whole, chosen = {}, {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", note="it has `levels` and `environments`") from error
    if whole:
        raise SettingsError(f"{path} has {next(iter(whole))!r}", note="it has `levels` and `environments`, and no more")
    named = {"gateway": "info", **chosen, **({"gateway": own} if own else {})}
    if wrong := [f"{name}: {level}" for name, level in named.items() if level not in _NAMES]:
        raise SettingsError(f"{path} has {wrong[0]}", note=f"a level is one of {', '.join(_NAMES)}")
    return {name: logging.getLevelNamesMapping()[level.upper()] for name, level in named.items()}
