"""State dicts: found in what a file holds, and brought under the keys of a module.

Keys may have prefixes: of torch.compile, of DDP and FSDP, of the module that the network was trained in. What leads to
the module's own keys is taken off, and can be said.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

State = Mapping[str, Tensor]

# Parts of a path that wrappers add wherever they are put around a module.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_AVERAGED = re.compile(r"(^|[._])(ema|swa)($|[._])|averag|shadow")
_DEPTH = 3  # of dictionaries within dictionaries: a callback keeps them in "callbacks" under its own name
_LISTED = 10  # keys that are named


@dataclass(frozen=True)
class Candidate:
    """A state dict that may be meant."""

    where: str  # in the file; "" for the file itself
    state: State
    averaged: bool  # EMA, SWA
    is_plain: bool = True  # all of what lies there


@dataclass(frozen=True)
class Fit:
    """The weights of a file under the keys of a module, and what does not fit."""

    state: State  # {key of the module: tensor}
    unexpected: tuple[str, ...]  # the module has no such key
    outside: tuple[str, ...]  # not under the prefix: a loss's, a metric's, a counter
    missing: tuple[str, ...]
    misshaped: tuple[str, ...]  # "head.weight [10, 64], the module has [3, 64]"
    prefix: str  # what was taken off the file's keys
    added: str  # what was put before them
    rivals: tuple[str, ...]  # other prefixes under which as many keys are the module's

    @property
    def faults(self) -> int:
        """How many keys do not fit."""
        return len(self.unexpected) + len(self.missing) + len(self.misshaped)

    @property
    def told(self) -> str:
        """What does not fit, in one line."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshaped}
        notes = [f"{len(keys)} {kind}: {listed(keys)}" for kind, keys in kinds.items() if keys]
        if self.prefix or self.added:
            notes.append(
                f"with {self.prefix or 'nothing'} taken off the keys, and {self.added or 'nothing'} put before"
            )
        return "; ".join(notes)

    def changes(self) -> Iterator[str]:
        """Say what was not taken as it stands in the file, a line each."""
        if self.prefix:
            yield f"  {self.prefix!r} was taken off their names"
        if self.added:
            yield f"  {self.added!r} was put before their names"
        if self.outside:
            yield f"  {len(self.outside)} in the file, but not of the module: {listed(self.outside)}"
        dtypes = {tensor.dtype for tensor in self.state.values() if tensor.is_floating_point()} - {torch.float32}
        if dtypes:
            names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            yield f"  {names} in the file, taken as what the module has"


def listed(keys: Collection[str]) -> str:
    """Name the first keys."""
    return ", ".join([*keys][:_LISTED]) + (", …" if len(keys) > _LISTED else "")


def states(found: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield the dictionaries of tensors in what a file holds, and where in it they are, the outermost first."""
    if not isinstance(found, Mapping) or depth > _DEPTH:
        return
    weights = {
        key: value if isinstance(value, Tensor) else torch.from_numpy(value)
        for key, value in found.items()
        if isinstance(key, str) and (isinstance(value, Tensor) or _is_numbers(value))
    }
    if weights:
        yield where, weights
    for key, value in found.items():
        yield from states(value, f"{where}.{key}" if where else str(key), depth + 1)


def is_averaged(name: str) -> bool:
    """Tell whether a name is one that averaged weights have: ema_state_dict, model_ema, averaged_model, swa_model."""
    return _AVERAGED.search(name.lower()) is not None


def not_finite(state: State) -> list[str]:
    """Return the keys of the tensors that have inf or nan in them."""
    return [key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def fit(module: nn.Module, state: State) -> Fit:
    """Find the keys of `module` in those of `state`, less what wrappers put before or between them."""
    fits = []
    for dropped in ((), _WRAPPERS, (*_WRAPPERS, "module")):
        fits.append(_fit(module.state_dict(keep_vars=True), state, dropped))
        if not fits[-1].faults:
            break
    return min(fits, key=lambda found: found.faults)


def candidates(module: nn.Module, there: Mapping[str, State]) -> list[Candidate]:
    """List what may be meant of the state dicts in a file.

    Averaged weights lie beside others under a name that says so, in a state dict under a first part of their keys that
    the module has none of, or in Lightning's "state_dict", while the others are in "current_model_state".

    Args:
        there: {where in the file: tensors}, as `states` finds them.
    """
    swapped = {"state_dict", "current_model_state", "averaging_state"} <= there.keys()
    found = []
    for where, state in there.items():
        for first, part in _apart(module, state).items():
            averaged = bool(first) or is_averaged(where) or (swapped and where == "state_dict")
            found.append(Candidate(".".join(filter(None, (where, first))), part, averaged, is_plain=not first))
    return found


def _apart(module: nn.Module, state: State) -> dict[str, State]:
    """Part what lies side by side in one state dict: {"": the weights, "model_ema": averaged ones, if there are}."""
    own = {key.partition(".")[0] for key in module.state_dict()}
    parted: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        first, dot, rest = key.partition(".")
        if dot and first not in own and is_averaged(first):
            parted.setdefault(first, {})[rest] = tensor
        else:
            parted.setdefault("", {})[key] = tensor
    return {**parted}


def _is_numbers(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"


def _fit(own: State, state: State, dropped: tuple[str, ...]) -> Fit:
    wanted = {_without(key, dropped): key for key in own}
    given = {_without(key, dropped): key for key in state}
    off, on = _prefixes(given, wanted), _prefixes(wanted, given)
    added = on[0][0] if on and (not off or on[0][1] > off[0][1]) else ""
    prefix = off[0][0] if off and not added else ""
    loaded, unexpected, outside = {}, [], []
    for short, key in given.items():
        name = added + short.removeprefix(prefix)
        if not short.startswith(prefix):
            outside.append(key)
            continue
        loaded[wanted.get(name, name)] = state[key]  # what the module does not have, a hook of it may know
        if name not in wanted:
            unexpected.append(key)
    for key, other in _tied(own).items():
        if key not in loaded and other in loaded:
            loaded[key] = loaded[other]
    misshaped = [
        f"{key} {list(loaded[key].shape)}, the module has {list(tensor.shape)}"
        for key, tensor in own.items()
        if key in loaded and not is_lazy(tensor) and loaded[key].shape != tensor.shape
    ]
    missing = [key for key in own if key not in loaded]
    rivals = [other for other, count in off[1:] if count == off[0][1]] if not added else []
    return Fit(
        loaded, tuple(unexpected), tuple(outside), tuple(missing), tuple(misshaped), prefix, added, tuple(rivals)
    )


def _without(key: str, dropped: tuple[str, ...]) -> str:
    return ".".join(part for part in key.split(".") if part not in dropped) if dropped else key


def _prefixes(keys: Collection[str], known: Collection[str]) -> list[tuple[str, int]]:
    """List (what stands before known ones among the keys, how often), the most frequent and then the shortest first."""
    found: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        found.update("".join(f"{part}." for part in parts[:at]) for at in range(len(parts))
                     if ".".join(parts[at:]) in known)  # fmt: skip
    return sorted(found.items(), key=lambda entry: (-entry[1], len(entry[0])))


def _tied(own: Mapping[str, Tensor]) -> dict[str, str]:
    """Return {key: another key of the same tensor}: a file may hold tied weights once."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for key, tensor in own.items():
        if id(tensor) in first:
            tied |= {key: first[id(tensor)], first[id(tensor)]: key}
        first.setdefault(id(tensor), key)
    return tied
