"""Files of weights, read without executing anything that is in them: torch.save's, safetensors', Lightning's."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from contracts import layout
from export.errors import ModuleError
from training import pickles
from training.states import State, states


def read_states(path: Path) -> dict[str, State]:
    """Read every state dict in a file: {where in it, "" for the file itself: its tensors}.

    Raises:
        ModuleError: it is missing, damaged, holds none, or would have to execute what is in it.
    """
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        raise ModuleError(f"{path} does not exist")
    if path.name.endswith(".index.json"):
        return {"": _sharded(path)}
    with path.open("rb") as stream:
        head = stream.read(64)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return {"": _safetensors(path)}
    if head.startswith(b"version https://git-lfs"):
        raise ModuleError(f"{path} is a pointer of Git LFS, not the weights", hint="git lfs pull")
    found = dict(states(_pickled(path)))
    if not found:
        raise ModuleError(
            f"{path} holds no weights",
            note="a dictionary of tensors by name, as model.state_dict() gives it, was not found in it",
            hint=f"where it was trained: torch.save(model.state_dict(), {path.name!r})",
        )
    return found


def _pickled(path: Path) -> Any:
    try:
        return pickles.read(path)
    except pickles.ScriptError as error:
        raise ModuleError(
            f"{path} is a TorchScript archive, not weights",
            hint=f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')",
        ) from error
    except pickles.ExecutesError as error:
        raise ModuleError(
            f"{path} holds {error}, and reading that would execute what is in the file",
            note="a whole pickled module, or something pickled beside the weights; weights alone are tensors",
            hint=f"if you trust it: m = torch.load({path.name!r}, weights_only=False), then "
            "torch.save(m.state_dict(), 'weights.pt'), of a dictionary m['model'] or what it is called there",
        ) from error
    except pickles.UnreadableError as error:
        raise _no_weights(path, str(error)) from error


def _no_weights(path: Path, note: str) -> ModuleError:
    return ModuleError(
        f"{path} is no file of weights, or a damaged one",
        note=f"{path.stat().st_size:,} bytes; {note}",
        hint=f"where it was trained: torch.save(model.state_dict(), {path.name!r})",
    )


def _folder(path: Path) -> ModuleError:
    if (known := pickles.folder(path)) is not None:
        what, call = known
        return ModuleError(f"{path} is {what}", note="--weights takes one file", hint=call)
    kinds = ("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt")
    inside = [found for kind in kinds for found in sorted(path.glob(kind))]
    return ModuleError(
        f"{path} is a folder",
        hint=f"--weights {layout.shown(inside[0])}" if inside else "name the file of the weights in it",
    )


def _safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModuleError(f"{path} is no safetensors file, or a damaged one", note=str(error)) from error


def _sharded(path: Path) -> State:
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModuleError(f"{path} is no index of weights", note=f"weight_map: {error}") from error
    if absent := [name for name in names if not (path.parent / name).is_file()]:
        raise ModuleError(f"{path} names files that are not beside it", note=", ".join(absent))
    state: dict[str, Tensor] = {}
    for name in names:
        for part in read_states(path.parent / name).values():
            state |= part
    return state
