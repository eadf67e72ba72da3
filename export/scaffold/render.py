"""What lies in the folders of a network's steps: their code, their configurations, and those of the ensemble.

The files are templates, in templates/: a step's step.py, what is in it for a user to write, and the configurations.
"""

import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from export.errors import StepFileError
from export.scaffold import step_file
from export.scaffold.network import Network, Tensor
from export.scaffold.step_file import Role, StepFile

ROLES: tuple[Role, ...] = get_args(Role)
CONFIG, CPU_CONFIG, REQUIREMENTS = "config.pbtxt", "configs/cpu.pbtxt", "requirements.txt"
STEP = "step.py"
_TEMPLATES = Path(__file__).parent / "templates"
VERSION = "1"
_NO_REQUIREMENTS = """\
# What {role}.py imports beside numpy and Pillow, which the server has: exact versions, e.g. soundfile==0.13.1
# `python -m deploy up` locks them in requirements.lock and installs them for this model alone.
"""
README = "Triton wants a version directory even for an ensemble, which has nothing to put there.\n"

Steps = Mapping[Role, StepFile]


@dataclass(frozen=True)
class _Call:
    """A step of the ensemble: the model, and what its tensors are called in there."""

    model: str
    inputs: Mapping[str, str]  # {its own name: the ensemble's}
    outputs: Mapping[str, str]


def pipeline_name(model: str) -> str:
    """Return what clients call: the ensemble of a network and its steps."""
    return f"{model}_pipeline"


def step_name(model: str, role: Role) -> str:
    """Return what a step of a network is called in the repository."""
    return f"{model}_{role}"


def templates(net: Network, takes: str, roles: Sequence[Role] = ROLES) -> dict[Role, StepFile]:
    """Return steps that do nothing yet, to be filled by the user.

    Args:
        takes: "bytes": the preprocess gets a string, JSON to begin with; "tensors": what the network takes.
    """
    texts = {role: _template(f"{role}.py", network=net, takes=takes) for role in roles}
    return {role: step_file.parse(text.encode(), role, f"{role}.py") for role, text in texts.items()}


def contents(net: Network, steps: Steps) -> dict[str, bytes]:
    """Return what the folders of the steps hold, {path in the repository: content}.

    Raises:
        StepFileError: a step does not fit the network.
    """
    texts: dict[str, bytes] = {}
    for role, step in steps.items():
        _check_fit(net, step)
        folder = step_name(net.model, role)
        code = {"model.py": step.text}
        if not step.whole:
            code = {"model.py": adapter(), STEP: _template(STEP, role=role), f"{role}.py": step.text}
        texts |= {f"{folder}/{VERSION}/{name}": text.encode() for name, text in code.items()}
        texts |= {f"{folder}/{VERSION}/{name}": text for name, text in step.helpers.items()}
        texts[f"{folder}/{REQUIREMENTS}"] = _NO_REQUIREMENTS.format(role=role).encode()
    texts |= configs(net, steps)
    texts[f"{pipeline_name(net.model)}/{VERSION}/README"] = README.encode()
    return texts


def configs(net: Network, steps: Steps) -> dict[str, bytes]:
    """Return the configurations of the steps and of the ensemble, {path in the repository: content}."""
    found: dict[str, str] = {}
    for role, step in steps.items():
        inputs, outputs = tensors_of(net, step)
        what = f"What a client sends -> {net.model}" if role == "preprocess" else f"{net.model} -> the answer"
        name = step_name(net.model, role)
        about: dict[str, Any] = {"name": name, "what": what, "inputs": inputs, "outputs": outputs}
        found[name] = _template("step.pbtxt", network=net, role=role, **about)
    name, calls = pipeline_name(net.model), _calls(net, steps)
    taken = tensors_of(net, steps["preprocess"])[0] if "preprocess" in steps else net.inputs
    given = tensors_of(net, steps["postprocess"])[1] if "postprocess" in steps else net.outputs
    tensors: dict[str, Any] = {"inputs": taken, "outputs": given}
    found[name] = _template("pipeline.pbtxt", network=net, name=name, steps=calls, **tensors)
    written = {f"{name}/{CONFIG}": text.encode() for name, text in found.items()}
    if not any(step.whole for step in steps.values()):
        written[f"{name}/{CPU_CONFIG}"] = _template("one_process.pbtxt", network=net, name=name, **tensors).encode()
    return written


def adapter() -> str:
    """Return the model.py that lets Triton's Python backend run a step.py: the same for every step."""
    return _template("model.py")


def tensors_of(net: Network, step: StepFile) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return what a step takes and gives."""
    assert step.declared is not None  # step_file sees to that
    if step.role == "preprocess":
        return step.declared, net.inputs
    wanted = [each for each in net.outputs if step.whole or step.takes_all or each.name in step.parameters]
    return wanted, step.declared


def _check_fit(net: Network, step: StepFile) -> None:
    if step.role == "preprocess" or step.whole:
        return
    known = [each.name for each in net.outputs]
    if strange := [name for name in step.parameters if name not in known]:
        raise StepFileError(
            f"postprocess takes {', '.join(strange)}, which {net.model} does not give",
            note=f"its outputs: {', '.join(known)}",
            hint="the parameters are outputs of the network, by their names",
        )


def _calls(net: Network, steps: Steps) -> list[_Call]:
    """Return the steps of the ensemble, with names for what goes from one to the next."""
    to = {each.name: f"to_network.{each.name}" if "preprocess" in steps else each.name for each in net.inputs}
    back = {each.name: f"from_network.{each.name}" if "postprocess" in steps else each.name for each in net.outputs}
    calls = []
    if step := steps.get("preprocess"):
        taken = {each.name: each.name for each in tensors_of(net, step)[0]}
        calls.append(_Call(step_name(net.model, "preprocess"), taken, to))
    if step := steps.get("postprocess"):
        wanted, given = tensors_of(net, step)
        back = {each.name: back[each.name] for each in wanted}
        calls.append(_Call(net.model, to, back))
        calls.append(_Call(step_name(net.model, "postprocess"), back, {each.name: each.name for each in given}))
    else:
        calls.append(_Call(net.model, to, back))
    return calls


def _template(file: str, **content: Any) -> str:
    helpers: dict[str, Callable[..., str]] = {
        "numpy": _numpy,
        "quoted": _quoted,
        "declared": _declared,
        "parameters": lambda tensors: ", ".join(_names(tensors)) or "**values",
        "passed": lambda tensors: _dict({each: each for each in _names(tensors)}) or "values",
    }
    return str(_environment().get_template(f"{file}.j2").render(content | helpers))


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(  # noqa: S701  # Python and pbtxt, not HTML
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _quoted(name: str) -> str:
    """Return a name as both Python and a configuration have it."""
    return '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))


def _numpy(tensor: Tensor) -> str:
    return {"string": "object_", "bool": "bool_"}.get(tensor.dtype, tensor.dtype)


def _declared(tensors: Sequence[Tensor]) -> str:
    return "{" + ", ".join(f'{_quoted(each.name)}: ("{each.dtype}", {list(each.dims)})' for each in tensors) + "}"


def _names(tensors: Sequence[Tensor]) -> list[str]:
    """Return the tensors' names where all of them can be parameters of a function."""
    names = [each.name for each in tensors]
    return names if all(name.isidentifier() and not keyword.iskeyword(name) for name in names) else []


def _dict(entries: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in entries.items()) + "}" if entries else ""
