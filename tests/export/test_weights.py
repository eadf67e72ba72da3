"""Weights go into a module whatever wrote them, as a whole or not at all, and nothing in their file is executed."""

import argparse
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export.errors import ModuleError
from export.source.weights import load_weights
from tests.export.modules import Net

torch.manual_seed(0)
TRAINED = Net()
STATE: Mapping[str, Tensor] = TRAINED.state_dict()
KEYS = list(STATE)


def behind(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


def loaded(path: Path) -> list[str]:
    """What is said when they go into a new module; every one of them must have."""
    module, said = Net(), list[str]()
    load_weights(module, path, said.append)
    assert all(torch.equal(value, STATE[key]) for key, value in module.state_dict().items())
    return said


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (STATE, []),
        (behind("_orig_mod."), ["'_orig_mod.' was taken off"]),
        (behind("module."), ["'module.' was taken off"]),
        (behind("_orig_mod.module."), ["'_orig_mod.module.' was taken off"]),
        ({key.replace("body.", "body._orig_mod."): value for key, value in STATE.items()}, []),
        ({key.replace("body.", "body.module."): value for key, value in STATE.items()}, []),
        ({"state_dict": behind("net."), "epoch": 3}, ["'state_dict' in", "'net.' was taken off"]),
        ({"state_dict": {**behind("model."), "loss.weight": torch.ones(2)}}, ["1 in the file, but not of the module"]),
        ({"model": STATE, "model_ema": {k: 2 * v for k, v in STATE.items()}}, ["also holds 'model_ema', which"]),
        (
            {"state_dict": STATE, "current_model_state": {k: 2 * v for k, v in STATE.items()},
             "averaging_state": {"n_averaged": torch.tensor(5)}},
            ["'state_dict' in", "also holds 'current_model_state'"],
        ),
        ({**behind("module."), "n_averaged": torch.tensor(3)}, ["not of the module: n_averaged"]),
        ({key: value.numpy() for key, value in STATE.items()}, []),
        ({key: value for key, value in STATE.items() if "num_batches" not in key}, []),
        (
            {
                "model": STATE,
                "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
                "args": argparse.Namespace(lr=np.float64(0.1), out=Path("runs")),
            },
            ["'model' in"],
        ),
    ],
)  # fmt: skip
def test_they_are_found_whatever_is_around_them(tmp_path: Path, content: Any, told: list[str]) -> None:
    torch.save(content, tmp_path / "weights.pt")
    said = "\n".join(loaded(tmp_path / "weights.pt"))
    assert all(words in said for words in told), said
    assert bool(said) == bool(told), said


def test_averaged_weights_are_taken_by_a_flag(tmp_path: Path) -> None:
    torch.save({"model": {k: 2 * v for k, v in STATE.items()}, "model_ema": STATE}, tmp_path / "weights.pt")
    module = Net()
    load_weights(module, tmp_path / "weights.pt", ema=True)
    assert all(torch.equal(value, STATE[key]) for key, value in module.state_dict().items())
    torch.save({"model": STATE}, tmp_path / "weights.pt")
    with pytest.raises(ModuleError, match="holds no averaged weights\nNote: it holds 'model'"):
        load_weights(module, tmp_path / "weights.pt", ema=True)


def test_safetensors_may_be_in_parts_and_hold_tied_weights_once(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "whole.safetensors")
    assert loaded(tmp_path / "whole.safetensors") == []
    for part, keys in (("a", KEYS[:3]), ("b", KEYS[3:])):
        save_file({key: STATE[key] for key in keys}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: "a" if key in KEYS[:3] else "b" for key in KEYS}}))
    assert loaded(index) == []
    (tmp_path / "b").unlink()
    with pytest.raises(ModuleError, match="names files that are not beside it\nNote: b"):
        loaded(index)

    words = nn.Embedding(5, 3)
    tied = nn.ModuleDict({"words": words, "out": nn.Linear(3, 5, bias=False)})
    tied["out"].weight = words.weight
    save_file({"words.weight": torch.ones(5, 3)}, tmp_path / "tied.safetensors")
    load_weights(tied, tmp_path / "tied.safetensors")
    assert torch.equal(tied["out"].weight, torch.ones(5, 3))  # type: ignore[arg-type]


def test_half_precision_is_taken_with_a_word(tmp_path: Path) -> None:
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}, tmp_path / "w"
    )
    module, said = Net(), list[str]()
    load_weights(module, tmp_path / "w", said.append)
    assert module.head.weight.dtype == torch.float32 and torch.equal(module.head.weight, STATE["head.weight"].half())
    assert said == ["  float16 in the file, taken as what the module has"]


def test_a_module_knows_the_keys_of_the_first_weight_norm(tmp_path: Path) -> None:
    old, new = torch.nn.utils.weight_norm(nn.Linear(3, 2)), nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    torch.save({f"module.{key}": value for key, value in old.state_dict().items()}, tmp_path / "old.pt")
    load_weights(new, tmp_path / "old.pt")
    assert torch.allclose(new(torch.ones(1, 3)), old(torch.ones(1, 3)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (dict(list(STATE.items())[:-2]), "2 missing: head.weight, head.bias"),
        ({**STATE, "extra.weight": torch.ones(1)}, "1 unexpected: extra.weight"),
        ({**STATE, "head.weight.bad": torch.ones(1)}, "1 unexpected: head.weight.bad"),  # pytorch#123510
        ({**STATE, "head.weight": torch.ones(5, 8)}, "1 of another shape: head.weight [5, 8], the module has [2, 8]"),
        ({f"k{n}": torch.ones(1) for n in range(12)}, "k8, k9, …"),
        ({**behind("student."), **behind("teacher.")}, "under the prefixes 'student.', 'teacher.'"),
        ({"a": STATE, "b": STATE}, "as 'a', 'b'"),
        ([1, 2], "as model.state_dict() gives it, was not found"),
        ({"epoch": 1}, "as model.state_dict() gives it, was not found"),
        (TRAINED, "holds tests.export.modules.Net, and reading that would execute what is in the file"),
        ({"model": STATE, "config": argparse.ArgumentParser}, "holds argparse.ArgumentParser, and reading"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path: Path, content: Any, told: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModuleError) as refused:
        loaded(tmp_path / "weights.pt")
    assert told in str(refused.value)


def write_the_start(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:700])


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "is a folder"),
        (lambda path: path.write_bytes(b""), "no file of weights, or a damaged one\nNote: 0 bytes"),
        (lambda path: path.write_text("weights"), "no file of weights, or a damaged one"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "is a pointer of Git LFS"),
        (lambda path: path.write_bytes(b"\x08" + 7 * b"\0" + b'{"a": 1}'), "is no safetensors file"),
        (lambda path: path.write_bytes(pickle.dumps(dict(STATE))), "only what torch.save or safetensors wrote is read"),
        (lambda path: torch.jit.save(torch.jit.script(TRAINED), str(path)), "is a TorchScript archive, not weights"),
        (write_the_start, "no file of weights, or a damaged one"),
    ],
)  # fmt: skip
def test_a_file_that_holds_none_is_refused(tmp_path: Path, write: Callable[[Path], object], told: str) -> None:
    write(tmp_path / "weights.pt")
    with pytest.raises(ModuleError, match=told):
        loaded(tmp_path / "weights.pt")


def test_a_folder_names_what_is_in_it(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "model.safetensors")
    with pytest.raises(ModuleError, match=r"is a folder\nHint: --weights .*model\.safetensors"):
        loaded(tmp_path)
    (tmp_path / "__0_0.distcp").touch()
    with pytest.raises(ModuleError, match="dcp_to_torch"):
        loaded(tmp_path)
