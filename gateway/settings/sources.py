"""Where settings come from: the environment over .env, secrets' files, configs/settings.yaml and defaults."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, NestedSecretsSettingsSource
from pydantic_settings.exceptions import SettingsError as Undecodable

from contracts import layout
from gateway.errors import SettingsError
from gateway.settings import levels
from gateway.settings.schema import DELIMITER, PREFIX, Settings

FILE_VARIABLE = "GATEWAY_SETTINGS_FILE"  # another file in place of configs/settings.yaml
ENV_FILE_VARIABLE = "GATEWAY_ENV_FILE"  # another one in place of .env
_NO_SETTINGS = {FILE_VARIABLE, ENV_FILE_VARIABLE, levels.FILE_VARIABLE}  # which begin like one
SECRETS = Path("/run/secrets")  # as containers are given them
DEFAULT = "default"
Tree = dict[str, Any]
_SETTINGS: Any = Settings  # it takes a class as well, and its type does not say so


@dataclass(frozen=True)
class Read:
    """Settings, and of each that is not a default where it is from: {"limits.body_bytes": "environment"}."""

    settings: Settings
    origins: Mapping[str, str]

    def origin(self, name: str) -> str:
        """Say where a setting is from; of a list or a mapping as a whole."""
        return self.origins.get(name, DEFAULT)


def file_path() -> Path:
    """Return the settings' file."""
    return Path(os.environ.get(FILE_VARIABLE) or layout.ROOT / "configs" / "settings.yaml")


def read(env_file: Path | None = None, secrets: Path = SECRETS) -> Read:
    """Read the settings of this process.

    Args:
        env_file: In place of .env in the current folder.

    Raises:
        SettingsError: a key is unknown, a value is not what it must be, or a file cannot be read.
    """
    outer = _variables(env_file or Path(os.environ.get(ENV_FILE_VARIABLE) or ".env"), secrets)
    named = [tree["environment"] for _, tree in outer if "environment" in tree]
    places = [*outer, *_of_file(file_path(), str(named[0]) if named else None)]
    merged: Tree = {}
    origins: dict[str, str] = {}
    for place, tree in reversed(places):
        _merge(merged, tree)
        origins |= dict.fromkeys(_leaves(tree), place)
    try:
        return Read(Settings(**merged), origins)
    except ValidationError as error:
        raise _wrong(error, origins) from error


def names(model: type[BaseModel] = Settings, above: str = "") -> Iterator[str]:
    """Yield the names of all settings: "limits.body_bytes"."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names(field.annotation, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def variable(name: str) -> str:
    """Return the environment variable of a setting: GATEWAY_LIMITS__BODY_BYTES of limits.body_bytes."""
    return PREFIX + name.replace(".", DELIMITER).upper()


def _variables(env_file: Path, secrets: Path) -> list[tuple[str, Tree]]:
    known = {variable(name) for name in names()}
    _check_variables([name.upper() for name in os.environ], known, "the environment")
    try:
        dotenv = DotEnvSettingsSource(Settings, env_file=env_file)
        _check_variables([name.upper() for name in dotenv.env_vars], known, str(env_file))
        found = [("environment", EnvSettingsSource(Settings)()), (str(env_file), _known(dotenv()))]
        if secrets.is_dir():
            kept = NestedSecretsSettingsSource(_SETTINGS, secrets, secrets_prefix=PREFIX, secrets_nested_delimiter="__")
            found.append((str(secrets), _known(kept())))
    except (Undecodable, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"the settings cannot be read: {error}") from error
    return found


def _known(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if name in Settings.model_fields}


def _check_variables(given: list[str], known: set[str], place: str) -> None:
    for name in sorted(given):
        if name.startswith(PREFIX) and name not in known and name not in _NO_SETTINGS:
            raise SettingsError(
                f"{place} has {name}, and there is no such setting",
                hint=_near(name, known) or "python -m gateway settings lists all",
            )


def _of_file(path: Path, environment: str | None) -> list[tuple[str, Tree]]:
    """Read the file: what it says of the environment, over what it says of all."""
    try:
        whole = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        if FILE_VARIABLE in os.environ:
            raise SettingsError(f"there is no file {path}", hint=f"{FILE_VARIABLE} names it") from None
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    whole = {} if whole is None else whole
    environments = whole.pop("environments", None) if isinstance(whole, dict) else None
    if not isinstance(whole, dict) or not isinstance(environments or {}, dict):
        raise SettingsError(f"{path} is no mapping of sections", note="as in configs/settings.yaml")
    chosen = environment or str(whole.get("environment", Settings.model_fields["environment"].default))
    environments = environments or {}
    if environment and environment not in environments:
        raise SettingsError(
            f"{path} has no environment {environment!r}", note=f"it has {', '.join(environments) or 'none'}"
        )
    own = environments.get(chosen) or {}
    return [(f"{path.name}, {chosen}", own), (path.name, whole)]


def _merge(into: Tree, tree: Tree) -> None:
    for name, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, dict) else value


def _leaves(tree: Tree, above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _wrong(error: ValidationError, origins: Mapping[str, str]) -> SettingsError:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    place = next((origins[known] for known in origins if known == name or known.startswith(f"{name}.")), None)
    if place is None:
        place = next((origins[known] for known in origins if name.startswith(f"{known}.")), "the settings")
    if first["type"] == "extra_forbidden":
        return SettingsError(
            f"{place} has {name}, and there is no such setting",
            hint=_near(name, set(names())) or "python -m gateway settings lists all",
        )
    return SettingsError(f"{name}, from {place}: {first['msg']}", note=f"the environment has it as {variable(name)}")


def _near(name: str, known: set[str]) -> str | None:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"is {near[0]} meant?" if near else None
