"""A release of a model that takes entities carries what they are filled from, or is not made."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cli.progress import Progress
from contracts import manifest
from contracts.entities import filling, releases
from contracts.entities.declaration import Declaration, Entity, Fill, Lookup
from contracts.errors import SpecError
from contracts.manifest import Manifest
from contracts.samples import save_arrays
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export import pipeline
from export.cache import Cache
from export.context import ExportRequest
from export.errors import RefusedError
from export.release import configs
from export.source.base import ExportSource
from export.source.graph_file import from_graph
from tests.export.brought import noise, parsed

BATCH = DynamicDim("batch", 1, 4, 8)
ENTITIES = Declaration(
    "pump",
    (Entity("well", "integer", sent=False), Entity("hours", "number")),
    (Lookup("wells", {"well": "well"}, (Fill("depth", default=10),)),),
)
SPEC = ModelSpec(
    "pump",
    "pump",
    tuple(TensorSpec(name, "float32", (BATCH, 1)) for name in ("hours", "depth")),
    (TensorSpec("litres", "float32", (BATCH, 1)),),
    {"fp32": Limits({"litres": 1e-4})},
    task="regression",
    tensorrt=False,
    entities=ENTITIES,
)
TABLES = {"wells": {"well": np.array([3, 7]), "depth": np.array([30.0, np.nan])}}


@pytest.fixture
def source(tmp_path: Path) -> ExportSource:
    onnx.save(
        parsed("(float[N,1] hours, float[N,1] depth) => (float[N,1] litres) { litres = Mul(hours, depth) }"),
        tmp_path / "model.onnx",
    )
    save_arrays(tmp_path / "samples.npz", {"hours": noise(40, 1), "depth": noise(40, 1)})
    brought = from_graph(tmp_path / "model.onnx", SPEC, [tmp_path / "samples.npz"], 20)
    return replace(brought, tables=lambda: TABLES)


def export(source: ExportSource, root: Path) -> Manifest:
    directory = root / "models" / source.spec.model
    with configs.written(directory, source.spec, source.calibration):
        return pipeline.run(
            source,
            ExportRequest("python -m export", precisions=["fp32"], search="never", serve=False),
            model_directory=directory,
            cache=Cache(root / "cache", {}),
            progress=Progress(),
        )


@pytest.mark.heavy
@pytest.mark.usefixtures("few_rounds")
def test_it_carries_its_declaration_its_tables_and_a_card(source: ExportSource, tmp_path: Path) -> None:
    release = export(source, tmp_path)
    directory = tmp_path / "models" / "pump" / "1"
    assert manifest.verify(directory) == release
    assert release.entities == ENTITIES and "tables/wells.npz" in {file.path for file in release.files}
    assert "contract: entities of pump" in [gate.name for gate in release.gates]
    declared, tables = releases.read(directory)
    filled = filling.fill(declared, [{"well": "3", "hours": 2}, {"well": 4, "hours": "0.5"}], tables)
    assert filled.inputs["depth"].tolist() == [[30], [10]] and filled.inputs.keys() == {"hours", "depth"}
    assert "| depth | float32 | wells, by well; 10 where it is not known |" in (directory / "MODEL_CARD.md").read_text()
    assert releases.find(tmp_path / "models", "pump") == directory


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (None, "has no tables to fill them from"),
        ({}, "no table wells"),
        ({"wells": {"well": np.array([3, 3]), "depth": np.ones(2)}}, "two rows of well 3"),
    ],
)
def test_tables_that_are_not_what_is_declared_are_refused_before_any_work(
    source: ExportSource, tmp_path: Path, tables: Mapping[str, Any] | None, told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        export(replace(source, tables=None if tables is None else lambda: tables), tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_model_that_takes_something_else_is_refused(source: ExportSource, tmp_path: Path) -> None:
    fills = (Fill("depth", dtype="int32", default=10), Fill("wide", "depth", default=1))
    other = replace(ENTITIES, entities=ENTITIES.entities[:1], lookups=(replace(ENTITIES.lookups[0], fills=fills),))
    with pytest.raises(RefusedError, match="entities of pump") as refused:
        export(replace(source, spec=replace(SPEC, entities=other)), tmp_path)
    for told in (
        "'depth' is float32 with dims [1], not int32",
        "'wide' is no input of it",
        "the input 'hours' is neither an entity nor looked up",
    ):
        assert told in str(refused.value)


def test_entities_are_of_the_model_that_callers_ask() -> None:
    with pytest.raises(SpecError, match="its entities are of 'other'"):
        replace(SPEC, entities=replace(ENTITIES, model="other"))
