"""Weights from a file into a module: whatever wrote them, as long as nothing in the file has to be executed.

  torch.save(model.state_dict(), FILE)          also within a dictionary, or a checkpoint of Lightning's
  safetensors.torch.save_file(…, FILE)          also in several files with their model.safetensors.index.json

What leads to the module's own keys is taken off (training/states.py), and said.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from export.errors import ModuleError
from export.source.weight_files import read_states
from training.states import Candidate, Fit, candidates, fit


def load_weights(
    module: nn.Module, path: Path, say: Callable[[str], None] = lambda line: None, *, ema: bool | None = None
) -> None:
    """Read the weights in `path` into `module`, all of them and nothing else.

    Args:
        ema: Whether averaged weights are meant or those of the last step, where the file has both; None: the latter,
            unless there are none.
        say: Told what was not taken as it is: prefixes, other entries, half precision.

    Raises:
        ModuleError: the file cannot be read without executing what is in it, or its weights are not the module's.
    """
    there = candidates(module, read_states(path))
    wanted = [candidate for candidate in there if ema in (None, candidate.averaged)]
    if not wanted:
        raise _no_such(path, [candidate.where for candidate in there], averaged=bool(ema))
    ranks = {candidate.where: _rank(candidate) for candidate in wanted}
    fits = {candidate.where: fit(module, candidate.state) for candidate in wanted}
    name = min(fits, key=lambda name: (fits[name].faults, ranks[name]))
    found = fits[name]
    rivals = [other for other in fits if other != name and fits[other].faults == found.faults == 0]
    try:
        # Its own hooks may know keys of older versions, such as those of the first weight_norm.
        module.load_state_dict(dict(found.state), strict=True, assign=_on_meta(module))
    except (RuntimeError, KeyError) as error:
        raise _misfit(module, path, found, str(error)) from error
    if found.unexpected and not found.missing:  # which load_state_dict overlooks in some places (pytorch#123510)
        raise _misfit(module, path, found, "")
    if found.rivals:
        raise _ambiguous(path, [found.prefix, *found.rivals], "under the prefixes")
    if any(ranks[other] == ranks[name] for other in rivals):
        raise _ambiguous(path, [name, *rivals], "as")
    for line in _words(path, name, found, rivals):
        say(line)


def _rank(candidate: Candidate) -> tuple[bool, bool, int]:
    """Order state dicts that fit equally: averaged ones and an optimizer's last, else the outermost first.

    Lightning's "state_dict" is what it would load itself, also where that is averaged.
    """
    where = candidate.where
    second = where == "current_model_state" or (candidate.averaged and where != "state_dict")
    return ("optim" in where.lower(), second, where.count("."))


def _on_meta(module: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in module.state_dict().values() if not is_lazy(tensor))


def _misfit(module: nn.Module, path: Path, found: Fit, said: str) -> ModuleError:
    return ModuleError(
        f"the weights in {path} are not those of {type(module).__name__}",
        note=found.told or said.splitlines()[-1].strip(),
        hint="make the module as it was trained: sizes, number of classes, layers; "
        "or load them in the callable itself, and leave --weights out",
    )


def _ambiguous(path: Path, places: Sequence[str], how: str) -> ModuleError:
    return ModuleError(
        f"{path} has weights of this module more than once",
        note=f"{how} {', '.join(map(repr, places))}",
        hint="save a file with those that shall be served",
    )


def _no_such(path: Path, there: Sequence[str], *, averaged: bool) -> ModuleError:
    return ModuleError(
        f"{path} holds no {'averaged weights' if averaged else 'weights but averaged ones'}",
        note=f"it holds {', '.join(repr(name) for name in there if name) or 'weights alone'}",
        hint=f"{'without --ema' if averaged else '--ema'} what it holds is taken",
    )


def _words(path: Path, name: str, found: Fit, rivals: Sequence[str]) -> Iterator[str]:
    """Say what was not taken as it stands in the file."""
    if name:
        yield f"Weights: {name!r} in {path.name}"
    if rivals:
        yield f"  {path.name} also holds {', '.join(map(repr, rivals))}, which would fit and was not taken"
    yield from found.changes()
