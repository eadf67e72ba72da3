"""Weights from a file into a module: whatever wrote them, as long as nothing in the file has to be executed.

  torch.save(model.state_dict(), FILE)          also within a dictionary, or a checkpoint of Lightning's
  safetensors.torch.save_file(…, FILE)          also in several files with their model.safetensors.index.json

Keys may have prefixes: of torch.compile, of DDP and FSDP, of the module that the network was trained in. What leads to
the module's own keys is taken off, and said.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from export.errors import ModuleError
from export.source.weight_files import State, read_states

# Parts of a path that wrappers add wherever they are put around a module.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_LISTED = 10  # keys that an error names


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


def load_weights(module: nn.Module, path: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Read the weights in `path` into `module`, all of them and nothing else.

    Args:
        say: Told what was not taken as it is: prefixes, other entries, half precision.

    Raises:
        ModuleError: the file cannot be read without executing what is in it, or its weights are not the module's.
    """
    candidates = {name: fit(module, state) for name, state in read_states(path).items()}
    name = min(candidates, key=lambda name: (candidates[name].faults, _rank(name)))
    found = candidates[name]
    rivals = [other for other in candidates if other != name and candidates[other].faults == found.faults == 0]
    try:
        # Its own hooks may know keys of older versions, such as those of the first weight_norm.
        module.load_state_dict(dict(found.state), strict=True, assign=_on_meta(module))
    except (RuntimeError, KeyError) as error:
        raise _misfit(module, path, found, str(error)) from error
    if found.unexpected and not found.missing:  # which load_state_dict overlooks in some places (pytorch#123510)
        raise _misfit(module, path, found, "")
    if found.rivals:
        raise _ambiguous(path, [found.prefix, *found.rivals], "under the prefixes")
    if any(_rank(other) == _rank(name) for other in rivals):
        raise _ambiguous(path, [name, *rivals], "as")
    for line in _words(path, name, found, rivals):
        say(line)


def fit(module: nn.Module, state: State) -> Fit:
    """Find the keys of `module` in those of `state`, less what wrappers put before or between them."""
    fits = []
    for dropped in ((), _WRAPPERS, (*_WRAPPERS, "module")):
        fits.append(_fit(module.state_dict(keep_vars=True), state, dropped))
        if not fits[-1].faults:
            break
    return min(fits, key=lambda found: found.faults)


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


def _rank(where: str) -> tuple[bool, bool, int]:
    """Order state dicts that fit equally: averaged ones and an optimizer's last, else the outermost first."""
    return ("optim" in where.lower(), "ema" in where.lower() or "averag" in where.lower(), where.count("."))


def _on_meta(module: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in module.state_dict().values() if not is_lazy(tensor))


def _misfit(module: nn.Module, path: Path, found: Fit, said: str) -> ModuleError:
    kinds = {"missing": found.missing, "unexpected": found.unexpected, "of another shape": found.misshaped}
    notes = [f"{len(keys)} {kind}: {_listed(keys)}" for kind, keys in kinds.items() if keys]
    if found.prefix or found.added:
        notes.append(f"with {found.prefix or 'nothing'} taken off the keys, and {found.added or 'nothing'} put before")
    return ModuleError(
        f"the weights in {path} are not those of {type(module).__name__}",
        note="; ".join(notes) or said.splitlines()[-1].strip(),
        hint="make the module as it was trained: sizes, number of classes, layers; "
        "or load them in the callable itself, and leave --weights out",
    )


def _ambiguous(path: Path, places: Sequence[str], how: str) -> ModuleError:
    return ModuleError(
        f"{path} has weights of this module more than once",
        note=f"{how} {', '.join(map(repr, places))}",
        hint="save a file with those that shall be served",
    )


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:_LISTED]) + (", …" if len(keys) > _LISTED else "")


def _words(path: Path, name: str, found: Fit, rivals: Sequence[str]) -> Iterator[str]:
    """Say what was not taken as it stands in the file."""
    if name:
        yield f"Weights: {name!r} in {path.name}"
    if rivals:
        yield f"  {path.name} also holds {', '.join(map(repr, rivals))}, which would fit and was not taken"
    if found.prefix:
        yield f"  {found.prefix!r} was taken off their names"
    if found.added:
        yield f"  {found.added!r} was put before their names"
    if found.outside:
        yield f"  {len(found.outside)} in the file, but not of the module: {_listed(found.outside)}"
    dtypes = {tensor.dtype for tensor in found.state.values() if tensor.is_floating_point()} - {torch.float32}
    if dtypes:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        yield f"  {names} in the file, taken as what the module has"
