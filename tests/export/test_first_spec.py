"""The first spec of a module says what its signature, the samples and its own answers say, and no more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import SpecError
from contracts.files import spec_file
from contracts.spec import ModelSpec
from export.errors import ModuleError, SampleError
from export.source import first_spec
from tests.export.modules import (
    BATCH,
    Encoder,
    Ends,
    InOneGo,
    Messages,
    Net,
    Recurrent,
    Voice,
    floats,
    save,
    tokens,
)

FOUND = "batch 1–8–32"


def drafted(module: nn.Module, folder: Path, *samples: dict[str, Any], name: str = "toy") -> tuple[ModelSpec, str]:
    """The spec that is written, as it is read back, and its text."""
    paths = [save(folder, f"s{number}", **arrays) for number, arrays in enumerate(samples)]
    said: list[str] = []
    found = first_spec.write(module.eval(), f"{name}:make", paths, folder, said.append)
    text = (folder / f"{found.model}.toml").read_text()
    assert found == spec_file.read(folder / f"{found.model}.toml") and text in said
    return found, text


def tensors(spec: ModelSpec) -> dict[str, str]:
    """{name: "dtype [dims]"}, a dynamic dimension as "name min–opt–max"."""
    return {
        tensor.name: f"{tensor.dtype} ["
        + ", ".join(str(d) if isinstance(d, int) else f"{d.name} {d.min}–{d.opt}–{d.max}" for d in tensor.shape)
        + "]"
        for tensor in (*spec.inputs, *spec.outputs)
    }


def test_axes_that_differ_between_the_files_are_dynamic_and_those_that_agree_are_one(tmp_path: Path) -> None:
    files = [
        {"attention_mask": np.ones((BATCH, n), np.int64), "input_ids": tokens(BATCH, n), "labels": tokens(BATCH) % 3}
        for n in (8, 20, 12)
    ]
    spec, _ = drafted(Encoder(), tmp_path, *files)
    assert tensors(spec) == {
        "input_ids": f"int64 [{FOUND}, length 8–12–20]",
        "attention_mask": f"int64 [{FOUND}, length 8–12–20]",
        "logits": f"float32 [{FOUND}, 3]",
        "embedding": f"float32 [{FOUND}, 16]",
    }
    assert (spec.task, spec.answer) == ("classification", "logits")


def test_an_output_that_follows_a_length_says_so(tmp_path: Path) -> None:
    spec, _ = drafted(Recurrent(), tmp_path, {"x": floats(BATCH, 6, 4)}, {"x": floats(BATCH, 12, 4)})
    assert tensors(spec)["output"] == f"float32 [{FOUND}, length 6–6–12, 16]"
    images = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Flatten(2))
    spec, _ = drafted(images, tmp_path, {"x": floats(40, 1, 8, 8)}, {"x": floats(40, 1, 16, 12)}, name="images")
    assert tensors(spec) == {
        "x": f"float32 [{FOUND}, 1, height 8–8–16, width 8–8–12]",
        "output": f"float32 [{FOUND}, 2, output_height_width 16–16–48]",
    }


def test_two_axes_of_one_input_are_one_dimension_where_they_have_to_be(tmp_path: Path) -> None:
    files = [{"nodes": floats(BATCH, n, 4), "adjacency": floats(BATCH, n, n)} for n in (5, 9)]
    spec, _ = drafted(Messages(), tmp_path, *files)
    assert tensors(spec)["adjacency"] == f"float32 [{FOUND}, length 5–5–9, length 5–5–9]"


def test_what_takes_no_batch_is_served_sample_by_sample(tmp_path: Path) -> None:
    arrays = {"sound": floats(40, 1, 16), "state": floats(40, 2, 1, 8), "rate": np.full(40, 16000)}
    spec, text = drafted(Voice(), tmp_path, arrays)
    assert not spec.batched and not spec.tensorrt and "no scalars, as rate is one" in text
    assert tensors(spec) == {
        "sound": "float32 [1, 16]",
        "state": "float32 [2, 1, 8]",
        "rate": "int64 []",
        "output_0": "float32 [1, 1]",
        "output_1": "float32 [2, 1, 8]",
    }


def test_rows_that_depend_on_values_are_counted_from_none(tmp_path: Path) -> None:
    spec, text = drafted(Ends(lambda y: y[y[:, 0] > 0]), tmp_path, {"x": floats(40, 9, 4)})
    assert tensors(spec)["output"].startswith("float32 [output_rows 0–")
    assert not spec.batched and "how many rows output has depends on values" in text


def test_outputs_have_the_names_that_the_module_has_for_them(tmp_path: Path) -> None:
    spec, _ = drafted(InOneGo(), tmp_path, {"scale": floats(BATCH, 3), "x": floats(BATCH, 4)})
    assert list(tensors(spec)) == ["x", "scale", "output_0", "best", "more_0", "more_1"]
    assert tensors(spec)["best"] == f"int64 [{FOUND}]"


@pytest.mark.parametrize(
    ("end", "labels", "task"),
    [
        (lambda y: y, tokens(BATCH) % 2, ("classification", "output", 0.5)),
        (lambda y: y, None, ("values", "", 0.5)),
        (lambda y: y, tokens(BATCH), ("values", "", 0.5)),  # labels that are no class of two
        (lambda y: y, floats(BATCH, 2), ("regression", "output", 0.5)),
        (lambda y: y[:, 0], floats(BATCH), ("regression", "output", 0.5)),
        (lambda y: y[:, :1], floats(BATCH) > 0, ("binary", "output", 0.0)),
        (lambda y: y[:, 0].sigmoid(), (floats(BATCH) > 0).astype(np.float32), ("binary", "output", 0.5)),
        (lambda y: (y.argmax(1), y[:, 1]), floats(BATCH), ("regression", "output_1", 0.5)),
    ],
)
def test_the_task_is_guessed_only_where_the_labels_leave_one(
    tmp_path: Path, end: Any, labels: Any, task: tuple[str, str, float]
) -> None:
    spec, text = drafted(Ends(end), tmp_path, {"x": floats(BATCH, 4), **({} if labels is None else {"labels": labels})})
    assert (spec.task, spec.answer, spec.threshold) == task
    assert "CHECK" in text


def test_limits_follow_the_scale_of_each_output(tmp_path: Path) -> None:
    spec, _ = drafted(Ends(lambda y: {"small": y / y.abs().max(), "large": y * 1e6, "best": y.argmax(1)}), tmp_path,
                      {"x": floats(BATCH, 4)})  # fmt: skip
    small, large, best = (spec.limits["fp16"].of(name) for name in ("small", "large", "best"))
    assert small.largest is not None and large.largest is not None
    assert small.largest == pytest.approx(0.02, rel=0.1)
    assert 1e4 < large.largest < 1e6 and best.mean == 0.01 and best.largest is None


@pytest.mark.parametrize(
    ("factory", "name"), [("price:make", "price"), ("shop.price:Net", "price"), ("model:f", "net")]
)
def test_it_is_named_after_the_file_or_where_that_says_nothing_the_class(
    tmp_path: Path, factory: str, name: str
) -> None:
    spec, _ = drafted(Net(), tmp_path, {"x": floats(BATCH, 4)}, name=factory.partition(":")[0])
    assert spec.model == name


def test_a_spec_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text("mine")
    with pytest.raises(SpecError, match=r"toy\.toml is there already\nHint: export with it: --spec"):
        drafted(Net(), tmp_path, {"x": floats(BATCH, 4)})
    assert (tmp_path / "toy.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("module", "files", "error", "told"),
    [
        (Net(), [{"x": floats(40, 5)}], ModuleError, "does not take the samples: RuntimeError: mat1 and mat2"),
        (Net(), [{"y": floats(40, 4), "x": floats(40, 4)}], ModuleError, "Net.forward cannot be called with"),
        (Net(), [{"x": floats(40, 4)}, {"x": tokens(40, 4)}], SampleError, "does not hold what"),
        (Net(), [{"labels": tokens(40)}], SampleError, "holds no inputs"),
        (Net(), [{"x": np.float32(3)}], SampleError, "x in .* is one number"),
        (Ends(torch.view_as_complex), [{"x": floats(40, 4)}], ModuleError, "as complex numbers\nHint"),
        (Ends(lambda y: y.bfloat16()), [{"x": floats(40, 4)}], ModuleError, "as bfloat16, which numpy has not"),
        (Ends(lambda y: "yes"), [{"x": floats(40, 4)}], ModuleError, "returns no tensor, but a str"),
    ],
)  # fmt: skip
def test_what_no_spec_can_be_made_of_is_told(
    tmp_path: Path, module: nn.Module, files: list[dict[str, Any]], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        drafted(module, tmp_path, *files)
    assert not (tmp_path / "toy.toml").exists()
