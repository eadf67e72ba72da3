"""What a search tries is written down plainly, and what cannot be meant is refused with the reason."""

import inspect
from pathlib import Path

import pytest

from contracts import layout
from training import families
from training.errors import SweepError
from training.estimators import fitting
from training.families import FAMILIES
from training.sweep import space
from training.sweep.space import Among, Halving, Range

SHIPPED = sorted(layout.sweeps().glob("*/*.yaml"))


def read(folder: Path, text: str) -> space.Space:
    path = folder / "some.yaml"
    path.write_text(text)
    return space.read(path)


def test_a_file_says_what_is_searched_and_what_all_trials_share(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "objectives: [quality, latency]\nhalving: {first: 2, factor: 4}\nfit: {trainer.max_epochs: 6}\n"
        "search:\n  model.lr: {low: 1.0e-4, high: 0.1, log: true}\n  model.widths: {among: [[64, 32], [128]]}\n"
        "  model.kind: {among: [a, true, null]}\n",
    )
    assert (found.name, found.objectives, found.halving) == ("some", ("quality", "latency"), Halving(2, 4))
    assert found.search["model.lr"] == Range(1e-4, 0.1, log=True)
    assert found.search["model.widths"] == Among(("[64, 32]", "[128]"))
    assert found.search["model.kind"] == Among(("a", "true", "null"))
    assert space.flags(found.fit) == ["--trainer.max_epochs=6"]
    assert space.flags({"model.lr": 0.1 + 0.2, "model.w": "[1]"}) == ["--model.lr=0.30000000000000004", "--model.w=[1]"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "does not say what is searched"),
        ("search: {}", "does not say what is searched"),
        ("search: [", "is not YAML"),
        ("seach: {}\nsearch: {a: {low: 1, high: 2}}", "has seach"),
        ("search: {a: {low: 1e-4, high: 1}}", "YAML takes 1.0e-4 for one, and 1e-4 for a word"),
        ("search: {a: {low: 2, high: 1}}", "nothing to search"),
        ("search: {a: {low: 1, high: 1}}", "nothing to search"),
        ("search: {a: {low: 0, high: 1, log: true}}", "logarithmic scale"),
        ("search: {a: {low: true, high: 2}}", "True is not a number"),
        ("search: {a: {min: 1, max: 2}}", "min"),
        ("search: {a: {among: []}}", "different values"),
        ("search: {a: {among: [1, 1]}}", "different values"),
        ("search: {a: {among: adam}}", "different values"),
        ("search: {a: {low: 0.0, high: .inf}}", "inf is not a number"),
        ("search: {a: {low: 0.0, high: 1.0, step: 0.3}}", "steps of 0.3 from 0.0 do not end at 1.0, but at 0.9"),
        ("search: {a: {low: 1, high: 10, step: 2}}", "but at 9"),
        ("search: {a: 3}", "3 is neither"),
        ("search: {a: {low: 1, high: 2}}\nobjectives: [speed]", "objectives are"),
        ("search: {a: {low: 1, high: 2}}\nobjectives: [latency]", "objectives are"),
        ("search: {a: {low: 1, high: 2}}\nhalving: {first: 0}", "halving begins at step 1"),
        ("search: {a: {low: 1, high: 2}}\nhalving: {rate: 3}", "rate"),
        ("search: {a: {low: 1, high: 2}}\nhalving: {first: 1.5}", "whole numbers"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SweepError, match=r"some\.yaml") as refused:
        read(tmp_path, text)
    assert told in str(refused.value)


def test_a_file_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(SweepError) as refused:
        space.locate(layout.DEFAULT_FAMILY, "nope", None)
    assert f"configs/sweeps/{layout.DEFAULT_FAMILY}/nope.yaml does not exist" in str(refused.value)
    assert "demo, network" in str(refused.value)


def test_every_family_can_be_searched() -> None:
    assert {path.parent.name for path in SHIPPED} == set(FAMILIES)
    assert all((layout.sweeps() / family / f"{space.NETWORK}.yaml") in SHIPPED for family in FAMILIES)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_searched_are_parameters_of_the_model(path: Path) -> None:
    found, family = space.read(path), families.load(path.parent.name)
    presets = {file.stem: file for folder in (family.directory, layout.model_params() / family.name)
               for file in folder.glob("*.yaml")}  # fmt: skip
    preset = presets.get(path.stem)
    assert preset is not None or path.stem == space.NETWORK, "it is named after what it starts from"
    estimator = fitting.named_in(preset) if preset else None
    known = inspect.signature(family.estimators[estimator] if estimator else family.module).parameters
    assert {name.removeprefix("model.") for name in found.search} <= known.keys()
