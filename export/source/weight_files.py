"""Files of weights, read without executing anything that is in them: torch.save's, safetensors', Lightning's."""

import argparse
import collections
import datetime
import json
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as multiarray
import torch
from torch import Tensor

from contracts import layout
from export.errors import ModuleError

State = Mapping[str, Tensor]

# What checkpoints hold beside weights, and what does nothing when it is read.
SAFE: list[Any] = [
    *(argparse.Namespace, collections.defaultdict, dict, list, set, datetime.timedelta, datetime.datetime),
    *(pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath),
    (pathlib.PosixPath, "pathlib._local.PosixPath"),  # as Python 3.13 writes it
    *(np.ndarray, np.dtype, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd")),
    *((getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
      for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
]  # fmt: skip
_DEPTH = 2  # of dictionaries within dictionaries
_LISTED = 10  # classes that an error names


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
    found = dict(_states(_pickled(path)))
    if not found:
        raise ModuleError(
            f"{path} holds no weights",
            note="a dictionary of tensors by name, as model.state_dict() gives it, was not found in it",
            hint=f"where it was trained: torch.save(model.state_dict(), {path.name!r})",
        )
    return found


def _states(found: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield the dictionaries of tensors in what a file holds, the outermost first."""
    if not isinstance(found, Mapping) or depth > _DEPTH:
        return
    weights = {
        key: value if isinstance(value, Tensor) else torch.from_numpy(value)
        for key, value in found.items()
        if isinstance(key, str) and isinstance(value, Tensor | np.ndarray)
    }
    if weights:
        yield where, weights
    for key, value in found.items():
        yield from _states(value, f"{where}.{key}" if where else str(key), depth + 1)


def _pickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(SAFE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _executes(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, AttributeError, zipfile.BadZipFile, KeyError) as error:
        if "TorchScript" in str(error):
            raise ModuleError(
                f"{path} is a TorchScript archive, not weights",
                hint=f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')",
            ) from error
        told = str(error).partition(".")[0] if isinstance(error, RuntimeError | OSError) else type(error).__name__
        raise _no_weights(path, told) from error


def _executes(path: Path, error: Exception) -> ModuleError:
    """Say which classes a file wants to run, and the call that makes one without."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip file of torch.save's: a plain pickle, or none
        return _no_weights(path, "only what torch.save or safetensors wrote is read")
    allowed = {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in SAFE}
    classes = [name for name in names if name not in allowed]
    own = [name for name in classes if not name.startswith("torch.")] or classes  # PyTorch's layers tell nothing
    if not own:
        return _no_weights(path, str(error).splitlines()[0])
    return ModuleError(
        f"{path} holds {', '.join(own[:_LISTED])}, and reading that would execute what is in the file",
        note="a whole pickled module, or something pickled beside the weights; weights alone are tensors",
        hint=f"if you trust it: m = torch.load({path.name!r}, weights_only=False), then "
        "torch.save(m.state_dict(), 'weights.pt'), of a dictionary m['model'] or what it is called there",
    )


def _no_weights(path: Path, note: str) -> ModuleError:
    return ModuleError(
        f"{path} is no file of weights, or a damaged one",
        note=f"{path.stat().st_size:,} bytes; {note}",
        hint=f"where it was trained: torch.save(model.state_dict(), {path.name!r})",
    )


def _folder(path: Path) -> ModuleError:
    if any(path.glob("*.distcp")):
        return ModuleError(
            f"{path} is a distributed checkpoint of several files",
            hint=f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pt",
        )
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
