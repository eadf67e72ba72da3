"""What torch.save wrote, read without executing anything that is in the file.

PyTorch's `weights_only` refuses every class that it does not know by name. Real checkpoints hold more than tensors: a
learning rate as numpy's scalar, a Path, the time. Those do nothing when they are read, and are allowed by name.
"""

import argparse
import datetime
import decimal
import fractions
import pathlib
import pickle
import re
import types
import uuid
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as multiarray
import torch

# What checkpoints hold beside weights, and what does nothing when it is read. A pair is (what is made, under which name
# the file has it): of Windows' paths none can be made here, and Python 3.13 keeps paths in another module.
SAFE: list[Any] = [
    *(argparse.Namespace, types.SimpleNamespace, dict, list, set, frozenset, tuple, int, float, bool, str),
    *(datetime.timedelta, datetime.datetime, datetime.date, datetime.time, datetime.timezone),
    *(decimal.Decimal, fractions.Fraction, uuid.UUID, uuid.SafeUUID, complex, slice),
    *(pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath),
    *((pathlib.PureWindowsPath, f"pathlib.{module}WindowsPath") for module in ("", "_local.")),
    *((getattr(pathlib, name), f"pathlib._local.{name}") for name in ("PosixPath", "PurePosixPath", "PureWindowsPath")),
    *(np.ndarray, np.dtype, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSUMmOV")),
    *((getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
      for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    # PyTorch fills plain dictionaries and lists alone.
    (lambda *_: {}, "collections.defaultdict"),
    (lambda *_: [], "collections.deque"),
    *((dict, f"{package}.AttributeDict") for package in (
        "lightning_fabric.utilities.data", "lightning.fabric.utilities.data",
        "pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing")),
]  # fmt: skip
_SAID = re.compile(r"WeightsUnpickler error:\s*([^\n]+)")
_LISTED = 10  # classes that an error names


class UnreadableError(Exception):
    """A file is none of torch.save's, or a damaged one; says which in a line."""


class ExecutesError(Exception):
    """A file holds classes that reading it would execute; says their names."""


class ScriptError(Exception):
    """A file is a TorchScript archive: a program, not weights."""


def read(path: Path) -> Any:
    """Read a file of torch.save's.

    Raises:
        UnreadableError, ExecutesError, ScriptError: it cannot be read, as they say.
    """
    try:
        with torch.serialization.safe_globals(SAFE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, AttributeError, zipfile.BadZipFile, KeyError) as error:
        if "TorchScript" in str(error):
            raise ScriptError from error
        told = str(error).partition(".")[0] if isinstance(error, RuntimeError | OSError) else type(error).__name__
        raise UnreadableError(told or type(error).__name__) from error


def folder(path: Path) -> tuple[str, str] | None:
    """Say what writes checkpoints as such a folder, and the call that makes one file of it; None: nothing known does.

    They are not put together here: what describes their parts is a pickle, which would be executed.
    """
    if any(path.glob("*.distcp")):
        if (path / "meta.pt").is_file():  # Lightning's, with hyperparameters and all
            call = f"python -m pytorch_lightning.utilities.consolidate_checkpoint {path}   # {path.name}.consolidated"
        else:
            call = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} {path}.consolidated"
        return "a distributed checkpoint of several files, as FSDP writes it", call
    if any(path.glob("*_model_states.pt")) or any(path.glob("*/*_model_states.pt")):
        if any(path.glob("checkpoint/*_model_states.pt")):  # Lightning's, as above
            module, convert = "pytorch_lightning.utilities.deepspeed", "convert_zero_checkpoint_to_fp32_state_dict"
            call = f"python -c \"import {module} as d; d.{convert}('{path}', '{path}.consolidated')\""
        else:
            call = f"python {path / 'zero_to_fp32.py'} {path} {path}.consolidated"
        return "a checkpoint of DeepSpeed, in a file for each process", call
    return None


def _refused(path: Path, error: Exception) -> Exception:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip file of torch.save's: a plain pickle, or none
        return UnreadableError("only what torch.save or safetensors wrote is read")
    allowed = {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in SAFE}
    classes = [name for name in names if name not in allowed]
    own = [name for name in classes if not name.startswith("torch.")] or classes  # PyTorch's layers tell nothing
    if not own:
        said = _SAID.search(str(error))
        return UnreadableError(said[1] if said else "PyTorch refuses it")
    return ExecutesError(", ".join(own[:_LISTED]))
