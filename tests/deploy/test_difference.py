"""What a release changes is said in the user's terms, and shortly."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts import manifest
from deploy.versions import difference
from tests.small_releases import release_of, written

CONFIG = """
name: "net" backend: "onnxruntime" max_batch_size: 8
input [ { name: "image" data_type: TYPE_UINT8 dims: [ 28, 28 ] } ]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] }, { name: "extra" data_type: TYPE_FP32 dims: [ 4 ] } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "threads" value { string_value: "1" } }
version_policy { specific { versions: [ 1 ] } }
"""
ENSEMBLE = """
name: "whole" platform: "ensemble"
ensemble_scheduling { step [
  { model_name: "before" model_version: 1 input_map { key: "a" value: "b" } output_map { key: "c" value: "d" } },
  { model_name: "net" model_version: 1 input_map { key: "d" value: "e" } output_map { key: "f" value: "g" } }
] }
version_policy { specific { versions: [ 1 ] } }
"""


def copied(folder: Path, files: Mapping[str, str]) -> Path:
    """A model as it is served: its files are read-only."""
    for path in written(folder, files).rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    return folder


def changed(tmp_path: Path, old: Mapping[str, str], new: Mapping[str, str], name: str = "net") -> list[str]:
    before, after = copied(tmp_path / "before" / name, old), copied(tmp_path / "after" / name, new)
    return [line.removeprefix(f"{name}: ") for line in difference.told({name: before}, {name: after})]


def of_version_2(text: str) -> str:
    return text.replace("versions: [ 1 ]", "versions: [ 2 ]").replace("model_version: 1", "model_version: 2")


@pytest.mark.parametrize("config", [CONFIG, ENSEMBLE])
def test_another_number_alone_is_no_difference(tmp_path: Path, config: str) -> None:
    old = {"config.pbtxt": config, "1/model.py": "a", "1/report.html": "of 1", ".release": "net"}
    new = {"config.pbtxt": of_version_2(config), "2/model.py": "a", "2/report.html": "of 2", ".release": "net"}
    assert changed(tmp_path, old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("max_batch_size: 8", "max_batch_size: 16", "max_batch_size 8 → 16"),
        ('"logits"', '"scores"', "output 'logits' renamed 'scores'"),
        ("dims: [ 10 ]", "dims: [ 12 ]", "output 'logits' dims [10] → [12]"),
        ("TYPE_UINT8", "TYPE_FP16", "input 'image' data_type TYPE_UINT8 → TYPE_FP16"),
        (
            ', { name: "extra" data_type: TYPE_FP32 dims: [ 4 ] }',
            "",
            "output 'extra' gone",
        ),
        (
            "dynamic_batching { max_queue_delay_microseconds: 100 }",
            "",
            "dynamic_batching gone",
        ),
        (": 100 }", ": 500 }", "dynamic_batching.max_queue_delay_microseconds 100 → 500"),
        ("count: 1", "count: 4", "instance_group.count 1 → 4"),
        ("KIND_CPU", "KIND_GPU", "instance_group.kind KIND_CPU → KIND_GPU"),
        ('"1"', '"2"', "parameters 'threads' string_value '1' → '2'"),
        ("version_policy", "response_cache { enable: true } version_policy", "response_cache added: enable: true"),
    ],
)
def test_a_configuration_is_compared_field_by_field(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in CONFIG
    versions = {"1/model.py": "a"}
    assert changed(
        tmp_path, {"config.pbtxt": CONFIG, **versions}, {"config.pbtxt": CONFIG.replace(old, new), **versions}
    ) == [told]


def test_steps_of_an_ensemble_are_known_by_their_names(tmp_path: Path) -> None:
    swapped = ENSEMBLE.replace('"before"', '"prepare"').replace('value: "g"', 'value: "h"')
    assert changed(tmp_path, {"config.pbtxt": ENSEMBLE, "1/x": ""}, {"config.pbtxt": swapped, "1/x": ""}, "whole") == [
        "ensemble_scheduling.step 'before' renamed 'prepare'",
        "ensemble_scheduling.step 'net' output_map 'f' 'g' → 'h'",
    ]


def test_files_are_named_and_those_of_other_versions_are_not(tmp_path: Path) -> None:
    config = 'backend: "python"'
    old = {"config.pbtxt": config, "1/model.py": "a", "labels.txt": "x", "2/model.py": "b", "2/helper.py": "h"}
    new = {"config.pbtxt": config, "3/model.py": "c", "labels.txt": "y", "vocab.txt": "v"}
    assert changed(tmp_path, old, new) == ["labels.txt, model.py changed; vocab.txt added; helper.py gone"]


def test_graphs_and_engines_have_a_line_with_precision_size_and_digest(tmp_path: Path) -> None:
    folders = []
    for number, (graph, plans) in enumerate([("g" * 1500, {}), ("h" * 2_500_000, {"model.sm90.plan": "p"})], 1):
        files = {f"{number}/{name}": text for name, text in {"model.onnx": graph, **plans}.items()}
        folder = written(tmp_path / str(number) / "net", {"config.pbtxt": 'backend: "onnxruntime"', **files})
        version = folder / str(number)
        manifest.write(release_of((), version=number, files=manifest.files_of(version)), version)
        folders.append(copied(folder, {}))
    graphs = [manifest.sha256(folder / str(number) / "model.onnx")[:8] for number, folder in enumerate(folders, 1)]
    plan = manifest.sha256(folders[1] / "2" / "model.sm90.plan")[:8]
    assert difference.told({"net": folders[0]}, {"net": folders[1]}) == [
        f"net: graph model.onnx fp32, 1.5 kB, sha256 {graphs[0]} → fp32, 2.5 MB, sha256 {graphs[1]}",
        f"net: engine model.sm90.plan added: 0.0 kB, sha256 {plan}",
    ]


def test_models_come_and_go_and_what_was_not_served_is_not_compared(tmp_path: Path) -> None:
    one = copied(tmp_path / "one", {"config.pbtxt": 'backend: "python"', "1/model.py": "a"})
    served = {"stays": one, "goes": one, "not there": tmp_path / "none"}
    assert difference.told(served, {"stays": one, "comes": one}) == ["comes: new", "goes: gone"]
    assert difference.told({}, {"comes": one}) == []
    assert difference.told({"comes": tmp_path / "none"}, {"comes": one}) == []


def test_it_is_short(tmp_path: Path) -> None:
    one = 'parameters {{ key: "p{}" value {{ string_value: "{}" }} }}'
    old, new = ("\n".join(one.format(n, value) for n in range(20)) for value in "ab")
    lines = changed(tmp_path, {"config.pbtxt": old}, {"config.pbtxt": new})
    assert len(lines) == 13 and lines[-1] == "… and 8 more"


def test_a_configuration_that_is_none_is_left_to_its_load(tmp_path: Path) -> None:
    [line] = changed(tmp_path, {"config.pbtxt": CONFIG}, {"config.pbtxt": "a typo {"})
    assert line.startswith("its configuration cannot be compared: ")
