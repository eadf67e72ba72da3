"""Makes a family out of another: its folder, its serving folders, its line in training/families/__init__.py.

What is made is that family once more, under another name: it can be trained, exported and served before anything of
it is changed, and at every step after.
"""

import keyword
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts import layout
from contracts.names import RULE, is_model_name
from training import families
from training.errors import FamilyError

_FAMILIES = Path(families.__file__).parent
_STEP = re.compile(r'^\s*model_name:\s*"([^"]+)"', re.MULTILINE)  # of an ensemble
_RELEASED = ("manifest.json", "*.onnx", "*.plan")  # what tells a release from a step's source
_LOCK = "dvc.lock"  # which data the other family's pipeline has made
# What stands before a family's own name where that is meant. The word alone may be anything, such as a tensor's name.
_BEFORE = (
    r'(?:\bfamily(?:: | ?= ?")|^name: "|string_value: "|training[./]families[./]|configs/\w+/'
    r"|-m (?:training|export|clients)(?: \w+)* |^# )"
)


@dataclass(frozen=True)
class NewFamily:
    """A family that was made, and what of it."""

    name: str
    folder: Path
    serving: tuple[Path, ...]  # its models in the model repository
    configs: tuple[Path, ...] = ()  # the folders of its presets and searches, where it has some

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that was written or changed."""
        return (self.folder, *self.configs, *self.serving, _FAMILIES / "__init__.py")


def make(name: str, like: str, network: str | None = None) -> NewFamily:
    """Make the family `name` as a copy of `like`: all of it, or nothing.

    Args:
        network: What its network is called behind the family's name; as the other's unless given.

    Raises:
        FamilyError: it cannot be called that, or there is something of that name.
        TrainingError: there is no family `like`.
    """
    _check_name(name)
    if network is not None and not is_model_name(network):
        raise FamilyError(f"a network cannot be called {network!r}", note=f"a name has {RULE}")
    spec, repository = families.spec(like), layout.model_repository()
    models = _serving(repository, like, spec.model)
    renamed = {model: _renamed(model, like, name) for model in models}
    if network is not None:
        renamed[spec.model] = f"{name}_{network}"
    configs = {
        folder / like: folder / name for folder in (layout.model_params(), layout.sweeps()) if (folder / like).is_dir()
    }
    copies = {_FAMILIES / like: _FAMILIES / name} | configs
    copies |= {repository / model: repository / new for model, new in renamed.items()}
    if there := [new for new in copies.values() if new.exists()]:
        raise FamilyError(
            f"{layout.shown(there[0])} is there already",
            hint="choose another name, or remove what nobody uses any more",
        )
    contents = {
        new / path: _rewritten((old / path).read_bytes(), like, name, renamed)
        for old, new in copies.items()
        for path in _files(old)
    }
    _write(contents, tuple(copies.values()), _listed((_FAMILIES / "__init__.py").read_text(), name))
    serving = tuple(repository / new for new in sorted(renamed.values()))
    return NewFamily(name, copies[_FAMILIES / like], serving, tuple(configs.values()))


def next_steps(made: NewFamily) -> str:
    """Say what is edited next, in which order, and the commands that show whether it holds."""
    steps = [
        (made.folder / "data.py", "its samples: `split` gives them by the names of the network's inputs"),
        (made.folder / "spec.py", "what it promises: tensors, task, metric, labels, how far a precision may be off"),
        (made.folder / "model.py", "the network, how it learns, and `served`: all that must not differ in serving"),
        (made.folder / "config.yaml", "how it is trained; a file beside it is a preset"),
        (made.folder / "examples.py", "files to send"),
        (made.folder / "README.md", "what it is"),
        *((made.folder / "pipeline" / name, what) for name, what in _STAGES.items() if _has(made, "pipeline", name)),
        *((model / "config.pbtxt", _TO_EDIT.get(_role(model, made.name), _TENSORS)) for model in made.serving),
    ]
    width = max(len(layout.shown(path)) for path, _ in steps)
    lines = [f"  {number:>2}. {layout.shown(path):<{width}}  {what}" for number, (path, what) in enumerate(steps, 1)]
    preset = " --preset demo" if (made.folder / "demo.yaml").is_file() else ""
    commands = [f"python -m {c}" for c in (f"training fit {made.name}{preset}", f"export {made.name}", "deploy up")]
    if _has(made, "pipeline", "dvc.yaml"):  # from its data to its release
        commands.insert(0, f".venv-data/bin/dvc repro {layout.shown(made.folder / 'pipeline' / 'dvc.yaml')}, or:")
    return "\n".join(["What to edit next, in this order:", *lines, "Then:", *(f"  {command}" for command in commands)])


def _has(made: NewFamily, *path: str) -> bool:
    return made.folder.joinpath(*path).is_file()


_STAGES = {
    "dvc.yaml": "the stages of its data, what each depends on and makes; params.yaml: what a version is made of",
    "stages.py": "how its raw data is found, cut and joined",
    "expected_raw.py": "what is expected of that, and expected_processed.py, of what training reads",
}
_TENSORS = "its tensors, as the spec has them; and configs/cpu.pbtxt beside it, where there is one"
_TO_EDIT = {
    "": "the way from a request to an answer: the steps, and which tensor goes where",
    "preprocess": "what a request brings; and 1/step.py, which makes the network's inputs of it",
    "postprocess": "what an answer is; and 1/step.py, which makes it of the network's outputs",
}


def _role(model: Path, family: str) -> str:
    return model.name.removeprefix(family).lstrip("_")


def _check_name(name: str) -> None:
    if not (is_model_name(name) and name.isidentifier()) or keyword.iskeyword(name):
        raise FamilyError(
            f"a family cannot be called {name!r}",
            note="it is a Python package, too: letters, digits and _, the first a letter, and no word of Python",
        )
    if name in families.FAMILIES:
        raise FamilyError(f"there is a family {name} already", note=f"families: {', '.join(families.FAMILIES)}")


def _serving(repository: Path, family: str, network: str) -> list[str]:
    """List the models that serve a family: its ensemble, the steps of that, and its network."""
    ensemble = repository / family / "config.pbtxt"
    steps = _STEP.findall(ensemble.read_text()) if ensemble.is_file() else []
    found = dict.fromkeys([family, *steps, network])
    return [model for model in found if (repository / model / "config.pbtxt").is_file()]


def _renamed(model: str, like: str, name: str) -> str:
    return name + model.removeprefix(like) if model == like or model.startswith(f"{like}_") else f"{name}_{model}"


def _files(folder: Path) -> Iterator[Path]:
    """List the files that make up a family or a model, relative to its folder: no releases, nothing that was made."""
    for path in sorted(folder.rglob("*")):
        own = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in own.parts)
        version = folder / own.parts[0]
        released = own.parts[0].isdecimal() and any(next(version.glob(kind), None) for kind in _RELEASED)
        if path.is_file() and not hidden and not released and own.name != _LOCK:
            yield own


def _rewritten(content: bytes, like: str, name: str, renamed: Mapping[str, str]) -> bytes:
    """Put the new family's name, and those of its models, in place of the other's."""
    try:
        text = content.decode()
    except UnicodeDecodeError:  # an image, say
        return content
    text = re.sub(rf"({_BEFORE}){re.escape(like)}(?![\w-])", rf"\g<1>{name}", text, flags=re.MULTILINE)
    for model, new in renamed.items():
        if model == like:  # an ensemble, which others may name as a step
            text = re.sub(rf'(model_name: "){re.escape(like)}"', rf'\g<1>{new}"', text)
        else:
            text = re.sub(rf"(?<![\w-]){re.escape(model)}(?![\w-])", new, text)
    return text.encode()


def _listed(module: str, name: str) -> str:
    """Add the family's line behind the last one."""
    head, found, tail = module.partition("FAMILIES: Mapping[str, str] = {\n")
    entries, end, rest = tail.partition("}\n")
    if not found or not end:
        raise FamilyError(f"{layout.shown(_FAMILIES / '__init__.py')} has no table FAMILIES to add a line to")
    return f'{head}{found}{entries}    "{name}": "training.families.{name}",\n{end}{rest}'


def _write(contents: Mapping[Path, bytes], folders: Collection[Path], module: str) -> None:
    """Write the files and, when all are there, the line that makes a family of them."""
    listed = _FAMILIES / "__init__.py"
    draft = listed.with_name(".__init__.py.new")
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        draft.write_text(module)
        draft.replace(listed)  # in one step
    except BaseException:
        draft.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        raise
