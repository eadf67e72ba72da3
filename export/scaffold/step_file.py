"""FILE.py of --preprocess and --postprocess: a function for one row, or a whole TritonPythonModel.

It is read, not run: what it imports may be in the server's environment alone.

  def preprocess(raw):                    its parameters are the step's inputs; a string is bytes, all else an array
      return {"ids": ..., "mask": ...}    an array for each input of the network, without the batch

  OUTPUTS = {"label": ("string", [1])}    what the step gives: name, type, dimensions without the batch
  def postprocess(logits):                its parameters are outputs of the network
      return {"label": ...}

INPUTS, of the same form, says what a preprocess takes where that is not a string for each parameter.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from contracts import layout
from export.errors import StepFileError
from export.scaffold import network
from export.scaffold.network import Tensor

Role = Literal["preprocess", "postprocess"]

CLASS = "TritonPythonModel"  # what Triton's Python backend looks for
# What a module beside model.py cannot be called: Python finds the one of that name before it.
PROVIDED = frozenset({"numpy", "PIL", "onnxruntime", "google", "packaging", "sympy", "mpmath", "flatbuffers"})
_TAKEN = frozenset({*sys.stdlib_module_names, *PROVIDED, "triton_python_backend_utils"})
_DECLARED = {"preprocess": "INPUTS", "postprocess": "OUTPUTS"}
_EXAMPLE = {
    "preprocess": 'INPUTS = {"audio": ("float32", [-1])}',
    "postprocess": 'OUTPUTS = {"label": ("string", [1]), "score": ("float32", [1])}',
}


@dataclass(frozen=True)
class StepFile:
    """A step that a user brought."""

    role: Role
    text: str
    whole: bool  # a TritonPythonModel: Triton runs it as it is
    parameters: tuple[str, ...] = ()  # of the function
    takes_all: bool = False  # the function has **parameters
    declared: tuple[Tensor, ...] | None = None  # INPUTS of a preprocess, OUTPUTS of a postprocess
    helpers: Mapping[str, bytes] = field(default_factory=dict)  # what it imports that lies beside it: {file: content}
    imports: frozenset[str] = (
        frozenset()
    )  # top-level packages, its own and its helpers'; neither Python's nor beside it


def read(path: Path, role: Role) -> StepFile:
    """Read and check a step, and what lies beside it that it imports.

    Raises:
        StepFileError: it is missing, is no Python, defines neither the function nor the class, or imports what a server
            would not find.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StepFileError(f"cannot read {path}: {error.strerror}") from error
    helpers = dict(_helpers(path, content, {path}))
    if taken := sorted(name for name in helpers if name.partition("/")[0] in ("model.py", "step.py", f"{role}.py")):
        raise StepFileError(
            f"{path.name} imports {taken[0]}, which would lie where the step itself does",
            hint="give that file another name",
        )
    found = parse(content, role, str(path))
    own = {name.partition("/")[0].removesuffix(".py") for name in helpers}
    used = {name for file, text in helpers.items() for name in _imported(_tree(text, file))}
    imports = (used | found.imports) - own - {*sys.stdlib_module_names, "triton_python_backend_utils"}
    return replace(found, helpers=helpers, imports=frozenset(imports))


def read_all(**files: Path | None) -> dict[Role, StepFile]:
    """Read the steps that are given, {role: file}; as `read`."""
    given: dict[Role, Path | None] = {"preprocess": files["preprocess"], "postprocess": files["postprocess"]}
    return {role: read(path, role) for role, path in given.items() if path is not None}


def parse(content: bytes, role: Role, name: str) -> StepFile:
    """Check the text of a step by itself.

    Args:
        name: What errors call it.

    Raises:
        StepFileError: it is no Python, or defines neither the function nor the class.
    """
    tree = _tree(content, name)
    text = content.decode("utf-8-sig").replace("\r\n", "\n")
    defined = {
        node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    imports = frozenset(_imported(tree))
    declared = _declared(tree, role, name)
    model, function = defined.get(CLASS), defined.get(role)
    if isinstance(model, ast.ClassDef):
        if (
            not any(isinstance(node, ast.FunctionDef) and node.name == "execute" for node in model.body)
            and not model.bases
        ):
            raise StepFileError(f"{name}: {CLASS} has no method execute", hint="def execute(self, requests): …")
        return _complete(StepFile(role, text, True, declared=declared, imports=imports), name)
    if isinstance(function, ast.AsyncFunctionDef):
        raise StepFileError(f"{name}: {role} is an async function", hint=f"def {role}(…), without async")
    if not isinstance(function, ast.FunctionDef):
        raise StepFileError(
            f"{name} defines neither a function {role} nor a class {CLASS}",
            note=f"at its top level it defines {', '.join(defined) or 'nothing'}",
            hint=f"def {role}({'raw' if role == 'preprocess' else 'logits'}): return {{name: array}}",
        )
    given = function.args
    if given.vararg or given.posonlyargs:
        raise StepFileError(f"{name}, line {function.lineno}: {role} is called with the tensors by their names")
    parameters = tuple(each.arg for each in (*given.args, *given.kwonlyargs))
    step = StepFile(role, text, False, parameters, given.kwarg is not None, declared, imports=imports)
    return _complete(step, name)


def _complete(step: StepFile, name: str) -> StepFile:
    constant = _DECLARED[step.role]
    example = f"one of its lines has to be, for example: {_EXAMPLE[step.role]}"
    if step.role == "postprocess" and not step.declared:
        raise StepFileError(f"{name} does not say what it gives", hint=example)
    if step.role == "preprocess" and not step.declared:
        if step.whole or not step.parameters:
            raise StepFileError(f"{name} does not say what it takes", hint=example)
        step = replace(step, declared=tuple(Tensor(each, network.STRING, (1,)) for each in step.parameters))
    assert step.declared is not None
    names = {tensor.name for tensor in step.declared}
    if step.role == "preprocess" and not step.whole and not step.takes_all and names != set(step.parameters):
        raise StepFileError(
            f"{name}: {constant} has {', '.join(sorted(names))}, and preprocess takes {', '.join(step.parameters)}",
            hint="the parameters are the inputs, by their names",
        )
    return step


def _declared(tree: ast.Module, role: Role, name: str) -> tuple[Tensor, ...] | None:
    constant = _DECLARED[role]
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if not any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            continue
        try:
            found = ast.literal_eval(value)
            return tuple(network.tensor(each, dtype, dims) for each, (dtype, dims) in _entries(found))
        except (ValueError, TypeError, AttributeError) as error:
            raise StepFileError(
                f"{name}, line {node.lineno}: {constant} is not understood: {error}",
                hint=f"written out, as in {_EXAMPLE[role]}",
            ) from error
    return None


def _entries(found: object) -> Iterator[tuple[str, tuple[str, Sequence[int]]]]:
    if not isinstance(found, dict) or not found:
        raise ValueError("it has to be a dict of names")
    for name, value in found.items():
        if not isinstance(value, tuple | list) or len(value) != 2 or not isinstance(value[1], list | tuple):
            raise ValueError(f"{name!r} needs a type and dimensions")
        if any(isinstance(dim, bool) or not isinstance(dim, int) or dim < -1 or dim == 0 for dim in value[1]):
            raise ValueError(f"the dimensions of {name!r} are numbers from 1 on, or -1 where one may vary")
        if not value[1]:
            raise ValueError(f"{name!r} has no dimensions: a single value has [1]")
        yield str(name), (str(value[0]), value[1])


def _tree(content: bytes, name: str) -> ast.Module:
    try:
        return ast.parse(content, name)
    except SyntaxError as error:
        text = (error.text or "").strip()
        raise StepFileError(f"{name}, line {error.lineno}: {error.msg}", note=text or None) from error
    except ValueError as error:  # null bytes, or not UTF-8
        raise StepFileError(f"{name} is no Python file: {error}") from error


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _helpers(path: Path, content: bytes, seen: set[Path]) -> Iterator[tuple[str, bytes]]:
    """Find the modules and packages beside `path` that it imports, and those that they do.

    Raises:
        StepFileError: one is imported relatively, or is hidden by another module of its name.
    """
    tree, folder = _tree(content, str(path)), path.parent
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            what = node.module or node.names[0].name
            raise StepFileError(
                f"{layout.shown(path)}, line {node.lineno}: a relative import, of {what}",
                note="a step's files lie in one folder, which is no package",
                hint=f"from {what} import …, or import {what}",
            )
    for name in sorted(set(_imported(tree))):
        module, package = folder / f"{name}.py", folder / name
        inside = sorted(package.rglob("*.py")) if (package / "__init__.py").is_file() else []
        files = [module] if module.is_file() else inside
        if not files or files[0] in seen:
            continue
        if name in _TAKEN or _is_at_root(name):
            raise StepFileError(
                f"{layout.shown(path)} imports {name}, and {layout.shown(files[0])} has the name of a module that "
                "a server has: that one would be found",
                hint="give the file another name, or move it elsewhere",
            )
        for file in files:
            seen.add(file)
            yield file.relative_to(folder).as_posix(), file.read_bytes().replace(b"\r\n", b"\n")
            if file is module:
                yield from _helpers(file, file.read_bytes(), seen)


def _is_at_root(name: str) -> bool:
    """Tell whether a module lies where the server is started, which a step's process looks into before all else."""
    return (layout.ROOT / f"{name}.py").is_file() or (layout.ROOT / name / "__init__.py").is_file()
