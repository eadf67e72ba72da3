"""What a release changes in what serves, to be said before it takes over: configurations, files, graphs, engines.

Both sides are copies in Triton's layout, with the one configuration that is served. The papers of a release, of which
none decides an answer, are not looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import golden, manifest, model_config
from contracts.errors import ManifestError, ModelConfigError
from contracts.manifest import Manifest
from contracts.model_config import ModelConfig
from deploy.served import arms, assemble, content

_MOST_LINES, _MOST_NAMES, _LONGEST_VALUE = 12, 6, 60
_PAPERS = {manifest.FILE_NAME, manifest.SIGNATURE, golden.FILE_NAME, "report.html", "report.md", "MODEL_CARD.md"}
_CONFIGURATIONS = {model_config.FILE_NAME, model_config.OTHERS}
_WEIGHTS = {".onnx": "graph", ".plan": "engine", ".data": "weights"}
_KEYS = ("name", "model_name")  # what elements of a list are known by: tensors, warm-ups; steps of an ensemble


def say_it(
    say: Callable[[str], None],
    what: str,
    served: Mapping[str, Path],
    new: Mapping[str, Path],
    config_name: str | None = None,
) -> None:
    """Say what differs below a line that says of what, and nothing where nothing does; the rest is as of `told`."""
    if lines := told(served, new, config_name):
        for line in (f"  {what} changes:", *(f"    {line}" for line in lines)):
            say(line)


def told(served: Mapping[str, Path], new: Mapping[str, Path], config_name: str | None = None) -> list[str]:
    """Return what differs, a line each and not too many of them; none where nothing does.

    Args:
        served: {model: its folder as it is served}, which may not be there.
        new: The same of what takes over.
        config_name: Which of a model's configurations is served, where it has several.
    """
    served = {name: folder for name, folder in served.items() if folder.is_dir()}
    if served.keys().isdisjoint(new):  # there is nothing to compare it with
        return []
    lines = [f"{name}: new" for name in new if name not in served]
    lines += [f"{name}: gone" for name in served if name not in new]
    for name in [name for name in new if name in served]:
        lines += [f"{name}: {line}" for line in _of_model(served[name], new[name], config_name)]
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"… and {more} more"] if more > 0 else lines


@dataclass(frozen=True)
class _Model:
    """A model by its newest version."""

    config: ModelConfig
    files: Mapping[str, Path]  # those of the version without its number, and those outside of versions
    release: Manifest | None

    @classmethod
    def read(cls, folder: Path, config_name: str | None) -> "_Model":
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        version = str(numbers[-1]) if numbers else ""
        files, network = {}, arms.plain(assemble.owner(folder) or "")
        for name, path in content.copied(folder).items():
            first, *rest = Path(name).parts
            shown = "/".join(part for part in rest if part != version) if first == version else name
            is_of_another = first.isdecimal() and first != version
            is_ours = path.name.startswith(".") or path.name == "__pycache__"
            is_the_networks = shown.startswith(f"steps/{network}/")  # in a model that runs it; it is told of itself
            if not (is_of_another or is_ours or is_the_networks or first in _CONFIGURATIONS or shown in _PAPERS):
                files[shown] = path
        release = None
        with suppress(ManifestError):  # of a model that was made by hand
            release = manifest.read(folder / version)
        config = model_config.read(model_config.chosen(folder, config_name))
        return cls(_without_numbers(config, numbers), files, release)

    def described(self, name: str) -> str:
        """Return a graph's or an engine's precision, size and digest."""
        path, release = self.files[name], self.release
        precision = next((c.precision for c in release.choices if c.file == name), None) if release else None
        size = path.stat().st_size
        size_text = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
        digest = f"sha256 {(self.digest(name) or manifest.sha256(path))[:8]}"
        return ", ".join([*([precision] if precision else []), size_text, digest])

    def digest(self, name: str) -> str | None:
        """Return the digest of a file of the version, where its manifest has it."""
        return next((f.sha256 for f in self.release.files if f.path == name), None) if self.release else None


def _of_model(served: Path, new: Path, config_name: str | None) -> Iterator[str]:
    try:
        before, after = _Model.read(served, config_name), _Model.read(new, config_name)
    except ModelConfigError as error:  # what is wrong with it, its load will say
        yield f"its configuration cannot be compared: {str(error).splitlines()[0]}"
        return
    yield from _of_message(before.config, after.config)
    yield from _of_files(before, after)


def _without_numbers(config: ModelConfig, versions: Sequence[int]) -> ModelConfig:
    """Take out of a configuration what says no more than the number of its version."""
    config.ClearField("name")
    if list(config.version_policy.specific.versions) == list(versions):
        config.ClearField("version_policy")
    for step in config.ensemble_scheduling.step:
        if step.model_version in (-1, *versions[-1:]):
            step.ClearField("model_version")
    return config


def _of_message(old: Any, new: Any, within: str = "") -> Iterator[str]:
    """Yield how two protobuf messages of the same kind differ, field by field.

    Args:
        within: The path of the message, with what separates it from a field of it.
    """
    for field in new.DESCRIPTOR.fields:
        path, one, other = f"{within}{field.name}", getattr(old, field.name), getattr(new, field.name)
        if field.is_repeated and field.message_type is None:
            if list(one) != list(other):
                yield f"{path} {_listed(field, one)} → {_listed(field, other)}"
        elif field.is_repeated:
            is_map = field.message_type.GetOptions().map_entry
            before, after = (dict(one), dict(other)) if is_map else _by_key(one, other)
            yield from _of_elements(before, after, path)
        elif field.message_type is not None:
            there = old.HasField(field.name), new.HasField(field.name)
            if there == (True, True):
                yield from _of_message(one, other, f"{path}.")
            elif any(there):
                yield _one_sided(path, one if there[0] else other, "gone" if there[0] else "added")
        elif one != other:
            yield f"{path} {_value(field, one)} → {_value(field, other)}"


def _of_elements(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield how the elements of a list or a map differ, by their keys; one that alone has another key was renamed."""
    gone, added = [key for key in old if key not in new], [key for key in new if key not in old]
    for key in gone:
        if alike := [other for other in added if _without_key(new[other]) == _without_key(old[key])]:
            added.remove(alike[0])
            yield f"{path}{_of_key(key)} renamed{_of_key(alike[0])}"
        else:
            yield _one_sided(f"{path}{_of_key(key)}", old[key], "gone")
    for key in added:
        yield _one_sided(f"{path}{_of_key(key)}", new[key], "added")
    for key in [key for key in old if key in new]:
        if isinstance(old[key], str):
            if old[key] != new[key]:
                yield f"{path}{_of_key(key)} {_cut(repr(old[key]))} → {_cut(repr(new[key]))}"
        else:
            yield from _of_message(old[key], new[key], f"{path}{_of_key(key)}{' ' if key else '.'}")


def _by_key(old: Sequence[Any], new: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the elements of two lists by what they are called, else by their place; "" where there is only one."""
    for key in _KEYS:
        names = [[getattr(element, key, "") for element in side] for side in (old, new)]
        if all(all(own) and len({*own}) == len(own) for own in names):
            return dict(zip(names[0], old, strict=True)), dict(zip(names[1], new, strict=True))
    places = [""] if max(len(old), len(new)) == 1 else [str(place) for place in range(max(len(old), len(new)))]
    return dict(zip(places, old, strict=False)), dict(zip(places, new, strict=False))


def _without_key(element: Any) -> Any:
    if isinstance(element, str):
        return element
    bare = type(element)()
    bare.CopyFrom(element)
    for key in _KEYS:
        if key in bare.DESCRIPTOR.fields_by_name:
            bare.ClearField(key)
    return bare


def _one_sided(path: str, value: Any, what: str) -> str:
    from google.protobuf import text_format

    if what == "gone":
        return f"{path} gone"
    bare = _without_key(value)
    text = repr(bare) if isinstance(bare, str) else text_format.MessageToString(bare, as_one_line=True, as_utf8=True)
    return f"{path} {what}: {_cut(text.strip())}" if text.strip() else f"{path} {what}"


def _of_files(before: _Model, after: _Model) -> Iterator[str]:
    old, new = before.files, after.files
    which = {
        "changed": [name for name in old if name in new and not _same(before, after, name)],
        "added": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    for what, names in which.items():
        for name in [name for name in names if Path(name).suffix in _WEIGHTS]:
            names.remove(name)
            sides = [model.described(name) for model in (before, after) if name in model.files]
            kind = _WEIGHTS[Path(name).suffix]
            yield f"{kind} {name} {'' if what == 'changed' else f'{what}: '}{' → '.join(sides)}"
    if any(which.values()):
        yield "; ".join(f"{_named(names)} {what}" for what, names in which.items() if names)


def _same(before: _Model, after: _Model, name: str) -> bool:
    digests = before.digest(name), after.digest(name)
    return digests[0] == digests[1] if all(digests) else content.equal(before.files[name], after.files[name])


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return f"{', '.join(names[:_MOST_NAMES])} and {more} more" if more > 0 else ", ".join(names)


def _of_key(key: str) -> str:
    return f" '{key}'" if key else ""


def _listed(field: Any, values: Sequence[Any]) -> str:
    return _cut(f"[{', '.join(_value(field, value) for value in values)}]")


def _value(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return _cut(repr(value) if isinstance(value, str | bytes) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
