"""A model's spec in a TOML file, as it comes with a graph that was trained elsewhere.

docs/how-to/bring-your-own-graph.md has an example with every entry. What is wrong is said in the file's own words.
"""

import codecs
import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from contracts.errors import SpecError
from contracts.judging import metric
from contracts.judging.card import Card
from contracts.spec import PRECISIONS, DynamicDim, Limits, ModelSpec, Precision, Task, TensorSpec, Tolerance

_MOST_BYTES = 1 << 20  # of a file; one that people write has some kilobytes
_HINT = "docs/how-to/bring-your-own-graph.md shows one with every entry"
_ENTRIES = (
    *("model", "task", "answer", "labels", "inputs", "outputs", "limits"),
    *("metric", "also", "threshold", "agree_within", "batch", "tensorrt", "card"),
)
_NEEDED = ("model", "inputs", "outputs", "limits")
_TENSOR = ("name", "dtype", "shape")
# What text may be called: it is one type, to numpy, to onnxruntime and to Triton.
_TEXT = frozenset({"object", "str", "bytes", "string"})
# numpy's names of what Triton serves.
_DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "object"),
)
_DIM = ("name", "min", "opt", "max")
_LIMITS = ("tolerance", "also", "agreement", "drop", "computed_share")
_TOLERANCE = ("largest", "mean", "p99", "relative")
_CARD = tuple(field.name for field in fields(Card))
_FORMER_DROP = "accuracy_drop_points"  # as specs were written before there were other metrics

Table = Mapping[str, Any]


class _IncompleteError(Exception):
    """What a file lacks or has in a wrong form, in words that follow its name."""


def read(path: Path) -> ModelSpec:
    """Read the spec of a graph that was trained elsewhere.

    Raises:
        SpecError: the file is missing, is not TOML, or lacks something.
    """
    raw = _raw(path)
    if unknown := sorted(raw.keys() - set(_ENTRIES)):
        raise SpecError(f"{path} has entries that no spec has: {', '.join(unknown)}", hint=_meant(unknown[0], _ENTRIES))
    if (task := raw.get("task", "classification")) not in get_args(Task):
        raise SpecError(f"{path}: there is no task {task!r}", note=f"tasks: {', '.join(get_args(Task))}")
    if isinstance(raw.get("limits"), dict) and (strange := sorted(raw["limits"].keys() - set(PRECISIONS))):
        raise SpecError(f"{path}: there is no precision {', '.join(strange)}", note=f"it is {', '.join(PRECISIONS)}")
    try:
        return _spec(raw, task)
    except _IncompleteError as error:
        raise SpecError(f"{path} is not a complete spec: {error}", hint=_HINT) from None


def _raw(path: Path) -> Table:
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise SpecError(f"the spec {path} has {size:,} bytes", note=f"the limit is {_MOST_BYTES:,}")
        return tomllib.loads(_decoded(path.read_bytes()))
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or arrays a thousand deep
        raise SpecError(f"{path} is not a TOML file: {error}") from error


def _decoded(content: bytes) -> str:
    """Return the text of a file whatever the locale: UTF-8, or with a mark at its begin UTF-16, as of PowerShell."""
    if content[2:] and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.removeprefix(codecs.BOM_UTF8).decode()


def _spec(raw: Table, task: Task) -> ModelSpec:
    _require(raw, _NEEDED, "it")
    limits = _table(raw["limits"], "limits", "[limits.fp32]")
    return ModelSpec(
        family=raw["model"],  # what a name may be is checked there
        model=raw["model"],
        inputs=_tensors(raw["inputs"], "inputs"),
        outputs=_tensors(raw["outputs"], "outputs"),
        limits={precision: _limits(precision, limits[precision]) for precision in PRECISIONS if precision in limits},
        task=task,
        answer=_text(raw.get("answer", ""), "answer"),
        labels=_labels(raw.get("labels", [])),
        metric=metric.named(_text(raw["metric"], "metric")) if "metric" in raw else None,
        also=_also(raw.get("also", [])),
        threshold=raw.get("threshold", 0.5),
        agree_within=raw.get("agree_within"),
        batched=raw.get("batch", True),
        tensorrt=raw.get("tensorrt", True),
        card=_card(raw["card"]) if "card" in raw else None,
    )


def _card(raw: object) -> Card:
    given = _table(raw, "card", "[card]")
    _require(given, _CARD, "[card]")
    _only(given, _CARD, "[card]")
    words: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Card(**words)


def _tensors(raw: object, kind: str) -> tuple[TensorSpec, ...]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise _IncompleteError(f"{kind} are tables, each under [[{kind}]]")
    return tuple(_tensor(entry, kind, number) for number, entry in enumerate(raw, start=1))


def _tensor(raw: Table, kind: str, number: int) -> TensorSpec:
    where = f"[[{kind}]] {raw['name']!r}" if isinstance(raw.get("name"), str) else f"the {_th(number)} of [[{kind}]]"
    _require(raw, _TENSOR, where)
    _only(raw, _TENSOR, where)
    if not isinstance(raw["shape"], list):
        raise _IncompleteError(f'the shape of {where} is an array, as in [{{ name = "batch", min = 1, … }}, 3]')
    shape = tuple(_dim(entry, where) for entry in raw["shape"])
    return TensorSpec(_text(raw["name"], f"name of {where}"), _dtype(raw["dtype"], where), shape)


def _dtype(raw: object, where: str) -> str:
    told = _text(raw, f"dtype of {where}")
    dtype = "object" if told in _TEXT else told
    if dtype not in _DTYPES:
        raise SpecError(
            f"{where} has the dtype {told!r}, which Triton does not serve",
            note=f"numpy's names: {', '.join(_DTYPES[:-1])}; and string",
        )
    return dtype


def _dim(raw: object, where: str) -> int | DynamicDim:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    if not isinstance(raw, dict):
        raise _IncompleteError(
            f"in the shape of {where}, {_written(raw)} is neither a size nor {{ name = …, min = …, opt = …, max = … }}"
        )
    told = f"{_written(raw)} in the shape of {where}"
    _require(raw, _DIM, told)
    _only(raw, _DIM, told)
    if strange := [key for key in _DIM[1:] if isinstance(raw[key], bool) or not isinstance(raw[key], int)]:
        raise _IncompleteError(f"{strange[0]} is no whole number: {told}")
    return DynamicDim(_text(raw["name"], f"name in {told}"), raw["min"], raw["opt"], raw["max"])


def _labels(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(label, str) for label in raw):
        raise _IncompleteError('labels are an array of texts, as in ["cat", "dog"]')
    return tuple(raw)


def _also(raw: object) -> tuple[metric.Metric, ...]:
    if not isinstance(raw, list) or not all(isinstance(name, str) for name in raw):
        raise _IncompleteError('also names further metrics, as in ["brier", "calibration_error"]')
    return tuple(map(metric.named, raw))


def _limits(precision: Precision, raw: object) -> Limits:
    where = f"[limits.{precision}]"
    given = dict(_table(raw, f"limits.{precision}", where))
    if _FORMER_DROP in given:
        given["drop"] = given.pop(_FORMER_DROP)
    _require(given, ("tolerance",), where)
    _only(given, _LIMITS, where)
    _table(given.get("also", {}), f"the entry also of {where}", "{ brier = 0.001 }")
    tolerance: dict[str, float | Tolerance] = {}
    for output, limit in _table(given.pop("tolerance"), f"the tolerance of {where}", "{ OUTPUT = 0.1 }").items():
        if isinstance(limit, dict):
            _only(limit, _TOLERANCE, f"the tolerance of {output} in {where}")
        try:
            tolerance[output] = Tolerance(**limit) if isinstance(limit, dict) else limit
        except SpecError as error:
            raise SpecError(f"limits.{precision}, {output}: {error}") from None
    return Limits(tolerance, **given)


def _table(raw: object, name: str, example: str) -> Table:
    if not isinstance(raw, dict):
        raise _IncompleteError(f"{name} is a table, as in {example}, not {_written(raw)}")
    return raw


def _text(raw: object, name: str) -> str:
    if not isinstance(raw, str):
        raise _IncompleteError(f"the {name} is a text in quotes, not {_written(raw)}")
    return raw


def _require(table: Table, keys: Collection[str], where: str) -> None:
    if lacking := [key for key in keys if key not in table]:
        raise _IncompleteError(f"{where} has no {' and no '.join(lacking)}")


def _only(table: Table, keys: Collection[str], where: str) -> None:
    if strange := [key for key in table if key not in keys]:
        raise _IncompleteError(
            f"{where} has {', '.join(strange)}, and the entries there are {', '.join(keys)}{_perhaps(strange[0], keys)}"
        )


def _perhaps(key: str, keys: Collection[str]) -> str:
    near = difflib.get_close_matches(key, keys, n=1)
    return f" (is {near[0]} meant?)" if near else ""


def _meant(key: str, keys: Collection[str]) -> str:
    if near := difflib.get_close_matches(key, keys, n=1):
        return f"is {near[0]} meant? {_HINT}"
    return _HINT


def _written(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_written(entry)}' for key, entry in value.items())} }}"
    return str(value)


def _th(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
