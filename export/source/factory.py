"""A module from "package.module:callable": imported, called, and put in order for serving."""

import difflib
import importlib
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from export.errors import ModuleError

# What is not the user's own code.
INSTALLED = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))


def make_module(factory: str) -> nn.Module:
    """Import "package.module:callable", with the working directory on the path, and call it.

    Raises:
        ModuleError: there is no such module or callable, it raises, or gives something else than an nn.Module.
    """
    name, _, attribute = factory.partition(":")
    if not attribute or not name or "/" in name or name.endswith(".py"):
        stem = Path(name.removesuffix(".py")).as_posix().replace("/", ".").lstrip(".")
        raise ModuleError(
            f"--torch takes package.module:callable, not {factory!r}",
            hint=f"--torch {stem or 'model'}:{attribute or 'make_model'}, from the folder that {stem or 'it'} is in",
        )
    found: Any = _imported(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _no_attribute(found, name, part)
        found = getattr(found, part)
    module: Any = found if isinstance(found, nn.Module) else _called(found, factory)
    # What wraps it for training or speed; DataParallel would also want its GPUs.
    while isinstance(module, DataParallel | DistributedDataParallel) or hasattr(module, "_orig_mod"):
        module = module.module if isinstance(module, DataParallel | DistributedDataParallel) else module._orig_mod
    assert isinstance(module, nn.Module)
    return module


def prepare(module: nn.Module, say: Callable[[str], None]) -> None:
    """Put a module on the CPU, in evaluation mode and in float32.

    Raises:
        ModuleError: it has parameters that were never given values.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if empty := [name for name, tensor in tensors if is_lazy(tensor) or tensor.is_meta]:
        raise ModuleError(
            f"{type(module).__name__} has parameters without values: {', '.join(empty[:5])}",
            hint="give its weights with --weights, or have the callable load them",
        )
    module.cpu().eval()
    if halves := {tensor.dtype for _, tensor in tensors} & {torch.float16, torch.bfloat16}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in halves))
        say(f"The module computes in {names}: taken in float32, from which FP16 and INT8 are made")
        module.float()


def _imported(name: str) -> Any:
    if str(Path.cwd()) not in (str(Path(entry).resolve()) for entry in sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if name == missing or name.startswith(f"{missing}."):
            raise ModuleError(
                f"there is no module {missing!r}",
                note=f"looked for in {Path.cwd()}, and in what is installed",
                hint=f"run it from the folder that {missing.partition('.')[0]} is in, or name that in PYTHONPATH",
            ) from error
        raise ModuleError(
            f"{name} imports {missing!r}, which is not installed here",
            hint=f"install it into the environment of {sys.executable}",
        ) from error
    except (Exception, SystemExit) as error:  # their code, which may raise anything
        raise ModuleError(
            f"{name} cannot be imported: {said(error)}",
            note=where(error),
            hint='what is run as a program stands below if __name__ == "__main__":',
        ) from error


def _no_attribute(found: Any, name: str, part: str) -> ModuleError:
    callables = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
    own = [key for key in callables if getattr(getattr(found, key), "__module__", name) == name]
    near = difflib.get_close_matches(part, own, n=1)
    return ModuleError(
        f"{name} has no {part!r}",
        note=f"it has {', '.join(own[:10]) or 'nothing that can be called'}",
        hint=f"--torch {name}:{near[0]}" if near else f"def {part}(): return the nn.Module",
    )


def _called(found: Any, factory: str) -> nn.Module:
    if not callable(found):
        raise ModuleError(
            f"{factory} is of the type {type(found).__name__}, and cannot be called",
            hint="name a function that returns the nn.Module, its class, or the module itself",
        )
    try:
        module = found()
    except (Exception, SystemExit) as error:
        raise ModuleError(
            f"{factory} raises {said(error)}",
            note=where(error),
            hint="it is called without arguments: def make_model(): return Net(width=64)",
        ) from error
    if not isinstance(module, nn.Module):
        raise ModuleError(
            f"{factory} gives a {type(module).__name__}, not an nn.Module",
            hint="return the module alone; its weights come with --weights",
        )
    return module


def said(error: BaseException) -> str:
    """Return an error of the user's code in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['without a word'])[0]}"


def where(error: BaseException) -> str | None:
    """Return the line of the user's own code that an error came from, the innermost of them, or None."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    ours = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((*INSTALLED, ours, "<"))]
    return f"{theirs[-1].filename}, line {theirs[-1].lineno}: {theirs[-1].line}" if theirs else None
