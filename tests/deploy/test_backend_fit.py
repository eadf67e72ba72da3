"""What a Python-based backend looks at before it serves: whether config.pbtxt fits the file, and what was proven."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import layout

Dims = Sequence[int] | None


@pytest.fixture(autouse=True)
def backends_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the server."""
    monkeypatch.syspath_prepend(layout.ROOT / "deploy" / "backends" / "python")


def configured(max_batch_size: int, x: Mapping[str, Any], y: Mapping[str, Any], at: Path = Path(), **more: Any) -> Any:
    from python_based.config import ModelConfig

    tensors = {
        kind: [{"name": n, "data_type": "TYPE_FP32", **t}] for kind, n, t in (("input", "x", x), ("output", "y", y))
    }
    args = {"model_config": json.dumps({"max_batch_size": max_batch_size, **tensors, **more})}
    where = {"model_repository": str(at), "model_version": "1"}
    return ModelConfig.of({**args, **where, "model_instance_kind": "CPU", "model_instance_device_id": "0"})


def faults(config: Any, x: Dims, y: Dims, *, exact: bool = True, optional: Sequence[str] = ()) -> str:
    from python_based import errors, fit

    try:
        fit.require(config, "model.onnx", {"x": ("FP32", x)}, {"y": ("FP32", y)}, optional, exact=exact)
    except errors.ModelError as error:
        return str(error).removeprefix("config.pbtxt does not fit model.onnx: ")
    return ""


ONE: dict[str, Any] = {"dims": [1]}
FOUR: dict[str, Any] = {"dims": [4]}
ANY: dict[str, Any] = {"dims": [-1]}


@pytest.mark.parametrize(
    ("max_batch", "x", "y", "of_x", "of_y", "told"),
    [
        (8, FOUR, FOUR, [-1, 4], [-1, 4], ""),
        (8, FOUR, FOUR, [-1, -1], [-1, 4], ""),  # fewer than the graph takes
        (8, ANY, FOUR, [-1, 4], [-1, 4], "input 'x' has dims [-1, -1], not [-1, 4]"),
        (8, FOUR, ANY, [-1, 4], [-1, 4], "output 'y' has dims [-1, -1], not [-1, 4]"),
        (8, FOUR, FOUR, [-1, 4], [-1, -1], "output 'y' has dims [-1, 4], not [-1, -1]"),
        (8, FOUR, FOUR, [-1, 4], [1, 4], "the batch of output 'y' is fixed"),
        (8, FOUR, FOUR, [8, 4], [-1, 4], "the batch of input 'x' is fixed"),
        (8, {"dims": [1], "reshape": {"shape": []}}, {"dims": [1], "reshape": {"shape": []}}, [-1], [-1], ""),
        (8, ONE, ONE, None, None, ""),  # one value for all rows, and of all rows
        (0, ONE, {"dims": [1, 1]}, None, None, ""),  # scalars
        (0, ONE, {"dims": [2]}, None, None, "output 'y' has dims [2]; of a scalar, or where the rank is unknown, each"),
        (0, FOUR, {"dims": [-1, 4]}, [4], [-1, 4], ""),  # as many rows as there are
        (0, FOUR, FOUR, [4, 1], [4], "input 'x' has dims [4], not [4, 1]"),
    ],
)  # fmt: skip
def test_dims_are_as_onnxruntimes_native_backend_has_them(
    max_batch: int, x: dict[str, Any], y: dict[str, Any], of_x: Dims, of_y: Dims, told: str
) -> None:
    found = faults(configured(max_batch, x, y), of_x, of_y)
    assert told in found and bool(found) == bool(told)


def test_tensorrts_native_backend_takes_a_dimension_that_varies_for_any() -> None:
    for x, y in ((ANY, FOUR), (FOUR, ANY)):
        assert faults(configured(8, x, y), [-1, 4], [-1, 4], exact=False) == ""
    assert "has dims [-1, 4], not [-1, 5]" in faults(configured(8, FOUR, FOUR), [-1, 5], [-1, 4], exact=False)


def test_what_is_not_configured_may_be_of_any_type_but_a_tensor_it_is() -> None:
    from python_based import errors, fit

    found = {"y": ("FP32", [4]), "z": ("tensor(complex64)", [4])}
    fit.require(configured(0, FOUR, FOUR), "model.onnx", {"x": ("FP32", [4])}, found, exact=True)
    with pytest.raises(errors.ModelError, match=r"'s' is seq\(tensor\(float\)\), no tensor"):
        more = {**found, "s": ("seq(tensor(float))", None)}
        fit.require(configured(0, FOUR, FOUR), "model.onnx", {"x": ("FP32", [4])}, more, exact=True)


def test_an_input_with_a_value_is_optional_and_that_only_where_nothing_is_batched() -> None:
    maybe = {"dims": [4], "optional": True}
    assert faults(configured(0, maybe, FOUR), [4], [4], optional=["x"]) == ""
    assert "has to be optional: true" in faults(configured(0, FOUR, FOUR), [4], [4], optional=["x"])
    assert "is not optional" in faults(configured(0, maybe, FOUR), [4], [4])
    assert "none can be where max_batch_size is not 0" in faults(
        configured(8, maybe, FOUR), [-1, 4], [-1, 4], optional=["x"]
    )


def test_what_says_nothing_is_no_setting_and_what_asks_for_something_else_is_refused() -> None:
    from python_based.errors import ModelError

    empty = configured(0, FOUR, FOUR, model_transaction_policy={"decoupled": False}, model_operations={})
    noted = configured(
        0, FOUR, FOUR, parameters={"family": {"string_value": "x"}}, optimization={"eager_batching": True}
    )
    assert not empty.parameters and not noted.parameters and not noted.optimization
    with pytest.raises(ModelError, match=r"config\.pbtxt has model_transaction_policy \{ decoupled \}"):
        configured(0, FOUR, FOUR, model_transaction_policy={"decoupled": True})
    with pytest.raises(ModelError, match=r"config\.pbtxt has model_operations"):
        configured(0, FOUR, FOUR, model_operations={"op_library_filename": ["ops.so"]})


def proven(at: Path, manifest: str | None, *, max_batch: int, x: dict[str, Any]) -> Any:
    from python_based.proven import ProvenRange

    (at / "1").mkdir()
    if manifest is not None:
        (at / "1" / "manifest.json").write_text(manifest)
    return ProvenRange(configured(max_batch, x, FOUR, at))


def check(found: Any, *shape: int) -> str:
    from python_based.errors import RequestError

    try:
        found.check({"x": np.empty(shape, np.float32)})
    except RequestError as error:
        return str(error)
    return ""


def test_every_dimension_that_varies_is_held_to_what_was_proven_but_for_the_batch(tmp_path: Path) -> None:
    told = json.dumps({"proven_range": {"x": [[1, 2, 4, 3], [8, 9, 4, 5]]}})
    found = proven(tmp_path, told, max_batch=64, x={"dims": [-1, 4, -1]})
    assert check(found, 1, 2, 4, 3) == check(found, 64, 9, 4, 5) == ""
    for shape in ((1, 1, 4, 3), (1, 2, 4, 2), (1, 10, 4, 3), (1, 2, 4, 6)):
        assert check(found, *shape) == f"input 'x' has shape {list(shape)}; proven from [1, 2, 4, 3] to [8, 9, 4, 5]"


def test_without_a_batch_the_first_dimension_is_like_the_others(tmp_path: Path) -> None:
    found = proven(tmp_path, json.dumps({"proven_range": {"x": [[2], [9]]}}), max_batch=0, x={"dims": [-1]})
    assert check(found, 9) == ""
    assert check(found, 10) == "input 'x' has shape [10]; proven from [2] to [9]"


@pytest.mark.parametrize("manifest", [None, '{"schema_version": 2}', '{"proven_range": {}}'])
def test_a_version_that_does_not_say_what_was_proven_takes_what_it_took(tmp_path: Path, manifest: str | None) -> None:
    assert check(proven(tmp_path, manifest, max_batch=8, x={"dims": [-1]}), 1, 10_000) == ""


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("{", "manifest.json is no JSON"),
        ("[]", "manifest.json is no manifest"),
        ('{"proven_range": {"x": [[1, 2, 2], [8, 9, 9]]}}', "input 'x' was proven from [1, 2, 2] to [8, 9, 9], config"),
    ],
)
def test_a_manifest_that_is_none_or_anothers_keeps_the_model_from_loading(
    tmp_path: Path, manifest: str, told: str
) -> None:
    from python_based.errors import ModelError

    with pytest.raises(ModelError) as refused:
        proven(tmp_path, manifest, max_batch=8, x={"dims": [-1]})
    assert told in str(refused.value)
