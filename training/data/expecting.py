"""Asks Great Expectations whether data is what is expected of it. Runs in the environment for data: gate.py starts it.

.venv-data/bin/python -m training.data.expecting FAMILY raw|processed PARAMS.yaml RESULT.json
"""

import json
import logging
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from cli.run import run_command_line
from contracts.errors import ProjectError
from training.data import places, staged
from training.data.folders import replaced
from training.data.parameters import whole
from training.data.verdict import Outcome, Verdict
from training.errors import DataError

_EXAMPLES = 5  # of unexpected values that are kept
_SAID = 300  # characters of an exception
_OF_TYPES = re.compile("'str'|same type|[Cc]ould not convert|to numeric")  # what is said where numbers were expected


def main() -> int:
    """Judge the tables of a family at a gate, write the data docs and, as JSON, the verdict."""
    family, name, parameters, result = sys.argv[1:]
    gate: staged.Gate = "raw" if name == "raw" else "processed"
    found = judge(family, gate, whole(Path(parameters)), places.of(family))
    Path(result).write_text(json.dumps(asdict(found)), encoding="utf-8")
    return 0


def judge(family: str, gate: staged.Gate, parameters: Mapping[str, Any], where: places.Places) -> Verdict:
    """Return what was found, table by table, and leave it as pages in the folder of the family's data docs."""
    expected = staged.gated(family, gate)
    try:
        tables = expected.tables(where, parameters)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:  # no file, no CSV, no such column, or type
        note = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"the {gate} data of {family} cannot be read", note=note) from error
    try:
        suites = expected.suites(parameters)
    except (KeyError, TypeError, ValueError) as error:
        note = f"{type(error).__name__}: {error}"
        raise DataError(f"the parameters do not say what the {gate} data of {family} is to be", note=note) from error
    with replaced(where.docs / gate) as docs:
        results = _validate(family, gate, tables, suites, docs)
    return Verdict(
        family=family,
        gate=gate,
        rows={name: len(table) for name, table in tables.items()},
        outcomes=tuple(
            _outcome(name, tables[name], each) for name, result in results.items() for each in result.results
        ),
        docs=str(where.docs / gate / "index.html"),
    )


def _validate(
    family: str, gate: str, tables: Mapping[str, Any], suites: Mapping[str, list[Any]], docs: Path
) -> Mapping[str, Any]:
    warnings.simplefilter("ignore")  # of deprecations between its own parts
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
    builder = {"class_name": "SiteBuilder", "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}}
    for site in context.get_site_names():
        context.delete_data_docs_site(site)
    context.add_data_docs_site("docs", {**builder, "store_backend": store, "show_how_to_buttons": False})
    source = context.data_sources.add_pandas(family)
    found = {}
    for name, expectations in suites.items():
        title = f"{family}.{gate}.{name}"
        suite = context.suites.add(gx.ExpectationSuite(name=title, expectations=expectations))
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        asked = context.validation_definitions.add(gx.ValidationDefinition(name=title, data=batch, suite=suite))
        found[name] = asked.run(batch_parameters={"dataframe": tables[name]})
    context.build_data_docs()
    return found


def _outcome(name: str, table: Any, given: Any) -> Outcome:
    told = given.to_json_dict()
    config, result = told["expectation_config"], told["result"]
    kwargs = {key: value for key, value in config["kwargs"].items() if key not in ("batch_id", "column")}
    reason = _exception(told.get("exception_info") or {})
    if reason is not None and _OF_TYPES.search(reason):
        reason = texts(table, [config["kwargs"].get(key) for key in ("column", "column_A", "column_B")]) or reason
    return Outcome(
        table=name,
        expectation=config["type"],
        column=config["kwargs"].get("column"),
        expected=kwargs,
        success=bool(told["success"]),
        observed=result.get("observed_value"),
        unexpected=result.get("unexpected_count"),
        examples=tuple(result.get("partial_unexpected_list") or ())[:_EXAMPLES],
        exception=reason,
    )


def texts(table: Any, columns: list[str | None]) -> str | None:
    """Say which values made texts of a column of numbers: compared with them, nothing can be."""
    import pandas as pd

    for column in columns:
        if column in table and not pd.api.types.is_numeric_dtype(values := table[column].dropna()):
            odd = values[pd.to_numeric(values, errors="coerce").isna()]
            if len(odd):
                shown = json.dumps([str(text) for text in odd.unique()[:_EXAMPLES]])
                return f"{column} has {len(odd):,} of {len(values):,} values that are no numbers, as {shown}"
    return None


def _exception(told: Mapping[str, Any]) -> str | None:
    """Return what kept an expectation from being asked; it is told flat, or under the names of metrics."""
    for each in (told, *(value for value in told.values() if isinstance(value, dict))):
        if each.get("raised_exception"):
            return str(each.get("exception_message", "")).strip().splitlines()[-1][:_SAID]
    return None


if __name__ == "__main__":
    run_command_line(main, ProjectError)
