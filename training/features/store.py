"""Feast's objects, made of what a family declares, and its store, as a file in configs/features/ configures it.

What a release says of a lookup in its manifest and what Feast knows of it so cannot differ: a view's join keys are the
lookup's key, its features are the fills, and a row is forgotten when it is older than declared.
"""

import contextlib
import os
import sqlite3
import string
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64, String

from contracts import layout
from contracts.entities.declaration import FLOATS, INTEGERS, TEXT, Declaration, Lookup
from training.errors import FeatureError
from training.families import Features
from training.features import declared
from training.features.declared import KNOWN

_TYPES: Mapping[str, Any] = {
    TEXT: String, **dict.fromkeys(INTEGERS, Int64), **dict.fromkeys(FLOATS, Float64),
}  # fmt: skip
_DATABASES = {"redis", "psycopg", "psycopg_pool", "sqlalchemy", "sqlite3"}  # the packages whose errors are theirs
_DEFAULTS = {"PGPORT": "5432", "PGSSLMODE": "require"}


def opened(family: str, features: Features, name: str) -> FeatureStore:
    """Open a family's store, and register its views there.

    Args:
        name: Of a file in configs/features/.

    Raises:
        FeatureError: a variable that it names is not set, or it cannot be reached.
    """
    os.environ["TZ"] = "UTC"  # Feast's SQLite store keeps times in the zone of its process
    time.tzset()
    home = declared.home(family)
    home.mkdir(parents=True, exist_ok=True)
    with reached(name):
        config = _configured(family, name, home)
        _never_waited_for(config)
        store = FeatureStore(config=config)
        store.apply(definitions(features.declaration, declared.tables(family)))
    return store


def offline(family: str, features: Features, folder: Path) -> FeatureStore:
    """Open a store of its own in a folder, for joins with the tables that are put there (`table_in`)."""
    config = RepoConfig(
        project=family,
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store=None,
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    store.apply(definitions(features.declaration, folder))
    return store


def definitions(declaration: Declaration, folder: Path) -> list[Any]:
    """Return Feast's entities and feature views of a declaration, whose tables lie in a folder."""
    keys: dict[str, Any] = {}
    for lookup in declaration.views:
        for column, value in nobody(declaration, lookup).items():
            value_type = ValueType.INT64 if isinstance(value, int) else ValueType.STRING
            keys[column] = Entity(name=column, join_keys=[column], value_type=value_type)
    return [*keys.values(), *(_view(lookup, keys, folder) for lookup in declaration.views)]


def nobody(declaration: Declaration, lookup: Lookup) -> dict[str, int | str]:
    """Return a key of a view that no row has, of the types that its keys have."""
    kinds = {entity.name: entity.kind for entity in declaration.entities}
    return {column: -1 if kinds.get(name) == "integer" else "" for column, name in lookup.key.items()}


def table_in(folder: Path, lookup: Lookup) -> Path:
    """Return where the table of a view lies in a folder."""
    return folder / f"{lookup.table}.parquet"


def ttl(lookup: Lookup) -> timedelta:
    """Return how long a row counts after it became known; 0: for ever."""
    assert lookup.as_of is not None  # of a view
    most = lookup.as_of.most_age_s
    return timedelta(seconds=0 if most is None else most - lookup.as_of.lag_s)


@contextlib.contextmanager
def reached(name: str) -> Iterator[None]:
    """Turn what databases and Feast raise where a store cannot be reached into an error in words."""
    try:
        yield
    except Exception as error:
        raised_by = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if not (raised_by & _DATABASES or isinstance(error, ConnectionError)):
            raise
        raise FeatureError(
            f"the feature store {name} cannot be used",
            note=(str(error).strip() or type(error).__name__).splitlines()[0],
            hint=f"configs/features/{name}.yaml says where it is; nothing of what it holds is lost",
        ) from error


def _view(lookup: Lookup, keys: Mapping[str, Any], folder: Path) -> FeatureView:
    assert lookup.as_of is not None  # of a view
    return FeatureView(
        name=lookup.view,
        entities=[keys[column] for column in lookup.key],
        ttl=ttl(lookup),
        schema=[
            *(Field(name=column, dtype=_key_type(keys[column])) for column in lookup.key),
            Field(name=lookup.as_of.column, dtype=Int64),
            *(Field(name=fill.column, dtype=_TYPES[fill.dtype]) for fill in lookup.fills),
        ],
        source=FileSource(name=lookup.view, path=str(table_in(folder, lookup).resolve()), timestamp_field=KNOWN),
        online=True,
    )


def _key_type(key: Any) -> Any:
    return Int64 if key.value_type == ValueType.INT64 else String


def _configured(family: str, name: str, home: Path) -> RepoConfig:
    """Read a configuration; its variables are filled in after it was parsed, so that a password may be anything."""
    path = layout.ROOT / "configs" / "features" / f"{name}.yaml"
    os.environ.update({"FEATURES_PROJECT": family, "FEATURES_HOME": str(home)})
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    raw = _filled(yaml.safe_load(path.read_text(encoding="utf-8")), path)
    return RepoConfig(**raw, repo_path=home)


def _filled(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(each, path) for key, each in value.items()}
    if not isinstance(value, str):
        return value
    template = string.Template(value)
    if lacking := [variable for variable in template.get_identifiers() if not os.environ.get(variable)]:
        raise FeatureError(f"{lacking[0]} is not set", note=f"{layout.shown(path)} names it")
    return template.substitute(os.environ)


def _never_waited_for(config: RepoConfig) -> None:
    """Have readers of SQLite never wait for its writer: how a file keeps its journal is its own property, and stays."""
    for file in (config.registry.path.removeprefix("sqlite:///"), getattr(config.online_store, "path", "")):
        if file.endswith(".db"):
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
