"""What onnxruntime says of a graph that it cannot load or run, in words: the node, whose fault it is, what to do.

Its exceptions share no base class, and say where in its own sources they were raised; what they begin with is the same.
"""

import re
from collections.abc import Callable
from pathlib import Path

import onnx

from contracts.samples import Batch
from export.errors import GraphError, RunError

_MARK = "[ONNXRuntimeError]"
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
# "/onnxruntime_src/…/reshape_helper.h:45 onnxruntime::ReshapeHelper::ReshapeHelper(…) a == b was false. "
_SOURCE = re.compile(r"\S+\.(?:cc|h|cpp|cu):\d+ (?:[^()]*::[^()]*\([^()]*\) (?:const )?)?(?:.{1,120}? was false\. )?")
_AT_A_NODE = re.compile(r"while running (\w+) node\. Name:'([^']*)' Status Message: ")

_ANEW = "it is a fault of the graph, so of what exported it: export it again with a newer exporter, or another opset"
# What it says when it loads a graph; what that means, and what to do.
_NOT_LOADED: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL),
        "it is written for opset {0} of {1}, and onnxruntime {version} reads up to {2}",
        "export it again with opset_version={2} or an older one",
    ),
    (
        re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
        "it has IR version {0}, and onnxruntime {version} reads up to {1}",
        "save it with an older onnx, or with model.ir_version = {1} if it uses nothing newer",
    ),
    (
        re.compile(r"(\S*):(\w+)\([-\d]+\) is not a registered function/op"),
        "onnxruntime {version} has no operator {1} of the domain {0}",
        "an operator of a plugin or a library of its own runs only beside that: leave it out of the graph, and let a "
        "Python step do its work (docs/how-to/steps-of-your-own.md)",
    ),
    (
        re.compile(r"No Op registered for (\w+) with domain_version of (\d+)"),
        "there is no operator {0} in opset {1}",
        "export it again with an opset that has it",
    ),
    (
        re.compile(r"Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'"),
        "onnxruntime {version} cannot compute the node {2} ({0}) on a CPU in the types that it has",
        "let the graph compute it in float32, or its integers in int32 or int64: a Cast before it and one behind it",
    ),
    (
        re.compile(r"Exception during initialization: .*\s(\S+) was false", re.DOTALL),
        "a check of its own fails, {0}, when it optimises the graph",
        "it is a fault of onnxruntime {version}; a graph without branches (If), or of another opset or exporter, may "
        "not meet it",
    ),
    (re.compile(r"Type Error: (.*)", re.DOTALL), "its types do not go together: {0}", _ANEW),
    (
        re.compile(r"Node \((.*?)\) Op \((\w+)\) \[\w+\] (.*)", re.DOTALL),
        "the node {0} ({1}) does not fit what it is given: {2}",
        _ANEW,
    ),
)


def is_the_runtimes(error: Exception) -> bool:
    """Tell whether onnxruntime itself raised it; anything else is a fault of whoever called."""
    return _MARK in str(error)


def not_loaded(graph: Path | None, error: Exception) -> GraphError:
    """Return the error of a graph that onnxruntime does not load."""
    import onnxruntime as ort

    said, name = str(error), graph or "the graph"
    for pattern, fact, hint in _NOT_LOADED:
        if found := pattern.search(said):
            words = [_in_one_line(_without_source(group or "")) or "without a name" for group in found.groups()]
            told = fact.format(*words, version=ort.__version__)
            mend = hint.format(*words, version=ort.__version__)
            return GraphError(f"onnxruntime cannot load {name}: {told}", hint=mend)
    return GraphError(f"onnxruntime cannot load {name}", note=_in_one_line(_without_source(said)), hint=_ANEW)


def not_run(graph: Path | bytes, error: Exception, batch: Batch, again: Callable[[bytes], object]) -> RunError:
    """Return the error of a graph that fails on a batch.

    Args:
        again: Runs a graph on the same batch, as it is: without the optimisations of onnxruntime.
    """
    said = str(error)
    at, runs_plainly = _last(said), False
    if named := _named(graph):
        try:
            again(named)
            runs_plainly = True
        except Exception as clearer:
            said = str(clearer) if at and not at[2] and is_the_runtimes(clearer) else said
    at = _last(said)
    node = f"the node {at[2]} ({at[1]})" if at and at[2] else f"a node ({at[1]})" if at else "the graph"
    reason = _in_one_line(_without_source(said[at.end() :] if at else said))
    given = ", ".join(f"{name} {values.dtype} {list(values.shape)}" for name, values in batch.items())
    return RunError(node, reason, note=f"it was given {given}", hint=_whose_fault(reason, runs_plainly=runs_plainly))


def baked_in(error: RunError, count: int) -> GraphError:
    """Return the error of a graph that runs a sample alone, and fails at a batch."""
    return GraphError(
        f"{error.node} takes one sample, and fails at a batch of {count}: {error.reason}",
        note="the graph says that its batch is dynamic, and a batch of 1 was baked into it when it was traced",
        hint="export it again with a batch of 2 or more as the example, and with its first dimension dynamic; where "
        "the model itself reshapes to a batch of 1, x.reshape(x.shape[0], -1) does not; or say batch = false",
    )


def _whose_fault(reason: str, *, runs_plainly: bool) -> str:
    if "out of data bounds" in reason or "out of bounds" in reason:
        return "an index of the samples is one that the graph has no row for: are they of this model's own vocabulary?"
    if "bad_alloc" in reason or "Failed to allocate memory" in reason:
        return "the machine has not the memory for it: a smaller max of the batch or of another dimension in the spec"
    if runs_plainly:
        return (
            "it is a fault of onnxruntime, whose optimisations break the graph: it runs without them; another opset or "
            "exporter, or a simplified graph (onnxsim), may not meet it"
        )
    return (
        "if it runs at other sizes, a size was baked in when it was traced: export it again with that dimension "
        "dynamic, or narrow the range in the spec; if it runs at none, the samples are not what it takes"
    )


def _last(said: str) -> re.Match[str] | None:
    """Return the innermost node that is named: the one in the branch of an If, not the If."""
    return max(_AT_A_NODE.finditer(said), key=re.Match.start, default=None)


def _named(graph: Path | bytes) -> bytes | None:
    """Return a graph whose nodes without a name are called after what they give; None where it is too large."""
    try:
        model = onnx.load(graph) if isinstance(graph, Path) else onnx.load_from_string(graph)
        for node in model.graph.node:
            node.name = node.name or f"that gives {node.output[0]}"
        return bytes(model.SerializeToString())
    except Exception:  # what is wrong with it is what was to be found out; without a name the error is as true
        return None


def _without_source(said: str) -> str:
    return _SOURCE.sub("", _CODE.sub("", said))


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
