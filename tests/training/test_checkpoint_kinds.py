"""Checkpoints as real runs leave them are read, or named for what they are with the call that mends it."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_sharded

from tests.conftest import FAMILY
from training import checkpoints, families
from training.errors import CheckpointError
from training.lineage import KEY

Raw = dict[str, Any]


@pytest.fixture(scope="module")
def family() -> families.Family:
    return families.load(FAMILY)


@pytest.fixture(scope="module")
def raw(family: families.Family) -> Raw:
    """What a checkpoint of an untrained network holds."""
    torch.manual_seed(0)
    parameters = {"widths": [4, 4], "blocks": [1, 1], "lr": 0.1}
    module = family.module(**parameters)
    lineage = {"family": FAMILY, "data_fingerprint": "f", "git_commit": "c", "git_dirty": False, "mlflow_run_id": None}
    stopping = {"EarlyStopping{'monitor': 'val_accuracy'}": {"best_score": torch.tensor(0.9)}}
    return {"state_dict": module.state_dict(), "hyper_parameters": parameters, KEY: lineage, "callbacks": stopping}


def renamed(raw: Raw, change: Callable[[str], str]) -> Raw:
    return {**raw, "state_dict": {change(key): value for key, value in raw["state_dict"].items()}}


def half(raw: Raw) -> Raw:
    return {**raw, "state_dict": {k: v.half() if v.is_floating_point() else v for k, v in raw["state_dict"].items()}}


def twice(raw: Raw) -> Raw:
    return {k: v * 2 if v.is_floating_point() else v for k, v in raw["state_dict"].items()}


READ: dict[str, tuple[Callable[[Raw], Raw], str]] = {
    "as it is": (lambda raw: raw, ""),
    "compiled": (lambda raw: renamed(raw, "_orig_mod.{}".format), "'_orig_mod.' was taken off"),
    "a part compiled": (lambda raw: renamed(raw, lambda key: key.replace("network.", "network._orig_mod.")), ""),
    "DDP": (lambda raw: renamed(raw, "module.{}".format), "'module.' was taken off"),
    "FSDP in one file": (lambda raw: renamed(raw, "_fsdp_wrapped_module.{}".format), "was taken off"),
    "half": (half, "float16 in the file, taken as what the module has"),
    "numpy's numbers": (lambda raw: {**raw, "hyper_parameters": raw["hyper_parameters"] | {"lr": np.float64(0.1)}}, ""),
    "a callback's state": (
        lambda raw: {**raw, "callbacks": {"Mine": {"dir": Path("a/b"), "when": datetime.timedelta(seconds=3)}}},
        "",
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_what_real_runs_leave_is_read(raw: Raw, family: families.Family, tmp_path: Path, kind: str) -> None:
    change, told = READ[kind]
    torch.save(change(raw), tmp_path / "some.ckpt")
    said = list[str]()
    read = checkpoints.read(tmp_path / "some.ckpt", family, said.append)
    for key, value in read.module.state_dict().items():
        torch.testing.assert_close(value, raw["state_dict"][key], rtol=1e-3, atol=1e-4)
    assert told in "\n".join(said) and bool(told) == bool(said)


AVERAGED: dict[str, tuple[Callable[[Raw], Raw], str | None, str | None]] = {
    # What --ema takes and what --no-ema does; None: the state_dict
    "Lightning's": (
        lambda raw: raw | {"current_model_state": twice(raw), "averaging_state": {"n_averaged": torch.tensor(5)}},
        None,
        "current_model_state",
    ),
    "beside": (lambda raw: raw | {"ema_state_dict": twice(raw)}, "ema_state_dict", None),
    "of a callback": (lambda raw: raw | {"callbacks": {"EMA": {"weights": twice(raw)}}}, "callbacks.EMA.weights", None),
    "within": (
        lambda raw: {**raw, "state_dict": raw["state_dict"] | {f"model_ema.{k}": v for k, v in twice(raw).items()}},
        "state_dict.model_ema",
        None,
    ),
}


@pytest.mark.parametrize("kind", AVERAGED)
def test_averaged_weights_are_taken_by_a_flag(raw: Raw, family: families.Family, tmp_path: Path, kind: str) -> None:
    change, *wanted = AVERAGED[kind]
    torch.save(change(raw), tmp_path / "some.ckpt")
    first = next(iter(raw["state_dict"]))
    for ema, where in zip((True, False), wanted, strict=True):
        read = checkpoints.read(tmp_path / "some.ckpt", family, ema=ema)
        assert read.weights == where
        factor = 1 if where is None else 2
        assert torch.equal(read.module.state_dict()[first], factor * raw["state_dict"][first])
    said = list[str]()
    assert checkpoints.read(tmp_path / "some.ckpt", family, said.append).weights is None
    assert any(f"ema takes '{where or 'state_dict'}'" in said[0] for where in wanted)


def test_where_there_are_no_averaged_weights_that_is_said(raw: Raw, family: families.Family, tmp_path: Path) -> None:
    torch.save(raw, tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError, match="has no averaged weights\nNote: its weights: 'state_dict'"):
        checkpoints.read(tmp_path / "some.ckpt", family, ema=True)


class OfMine:
    """Something that a callback kept."""


def without(raw: Raw, key: str) -> Raw:
    return {name: value for name, value in raw.items() if name != key}


def broken(raw: Raw) -> Raw:
    first = next(key for key in raw["state_dict"] if key.endswith("weight"))
    return {**raw, "state_dict": raw["state_dict"] | {first: torch.full_like(raw["state_dict"][first], torch.nan)}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw: without(raw, "hyper_parameters"), "has no hyper_parameters"),
        (lambda raw: without(raw, "state_dict"), "has no state_dict"),
        (lambda raw: without(raw, KEY), "Hint: weights from elsewhere: python -m export --torch"),
        (lambda raw: {**raw, "hyper_parameters": {"dropout": 0.1}}, "unexpected keyword argument 'dropout'"),
        (lambda raw: renamed(raw, lambda key: key.replace("network", "net")), "network.0.0.weight"),
        (
            lambda raw: {**raw, "callbacks": {"Mine": OfMine()}},
            "OfMine, and reading that would execute",
        ),
        (broken, "has weights that are inf or nan: network.0.0.weight"),
    ],
)
def test_what_cannot_be_read_is_named(
    raw: Raw, family: families.Family, tmp_path: Path, change: Callable[[Raw], Raw], told: str
) -> None:
    torch.save(change(raw), tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError) as refused:
        checkpoints.read(tmp_path / "some.ckpt", family)
    assert told in str(refused.value)
    assert "\x1b" not in str(refused.value), "PyTorch's own message is full of escape codes"


def sharded(raw: Raw, folder: Path) -> None:
    save_sharded({"model": raw["state_dict"]}, checkpoint_id=folder, no_dist=True)
    torch.save(without(raw, "state_dict"), folder / "meta.pt")


def of_deepspeed(raw: Raw, folder: Path) -> None:
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "mp_rank_00_model_states.pt").touch()


def of_others(raw: Raw, folder: Path) -> None:
    folder.mkdir()
    (folder / "best.ckpt").touch()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (sharded, ["as FSDP writes it", "python -m pytorch_lightning.utilities.consolidate_checkpoint"]),
        (of_deepspeed, ["a checkpoint of DeepSpeed", "convert_zero_checkpoint_to_fp32_state_dict"]),
        (of_others, ["is a folder", "best.ckpt"]),
    ],
)
def test_a_folder_is_named_with_the_call_that_makes_a_file_of_it(
    raw: Raw, family: families.Family, tmp_path: Path, make: Callable[[Raw, Path], None], told: list[str]
) -> None:
    make(raw, tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError) as refused:
        checkpoints.read(tmp_path / "some.ckpt", family)
    assert all(words in str(refused.value) for words in told), refused.value
