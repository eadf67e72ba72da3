"""Our onnxruntime backend beside NVIDIA's, on generated configurations: what loads, what is answered, and how.

NVIDIA's is not part of this project. TRITON_ONNXRUNTIME=DIRECTORY names a folder with a libtriton_onnxruntime.so,
compiled for the backend API of the pip-installed Triton: https://github.com/triton-inference-server/onnxruntime_backend.
The library of onnxruntime that it needs is taken from the server's environment. Without it this is skipped; what was
found out with it is tested without it in test_backends.py, test_backend_fit.py and test_backend_parts.py.
CONFIGURATIONS=N makes more of them than 60, CONFIGURATIONS_SEED=N others.
"""

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.triton import environment
from tests.deploy.configurations import Case, generated
from tests.deploy.tiny_models import ON_THE_CPU, Server, add_as_it_is, serving

COMPILED = os.environ.get("TRITON_ONNXRUNTIME")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not COMPILED, reason="TRITON_ONNXRUNTIME names no compiled onnxruntime backend"),
]

HALF = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]'
# What still differs, as docs/reference/onnxruntime-backend.md has it. Refused here and served there, by our reason:
STRICTER = (
    "which this backend does not support",  # a parameter that is all but a known one
    "is not optional",  # which the number of inputs hides
)


@dataclass(frozen=True)
class Seen:
    """What one backend made of a case."""

    refused: str  # the reason; "" if it serves
    answers: tuple[Any, ...] = ()  # an answer's output {name: array}, or an error's status
    config: dict[str, Any] = field(default_factory=dict)  # what it says that it serves


Both = dict[str, tuple[Seen, Seen]]  # {case: what ours made of it, and what NVIDIA's}


def official(at: Path) -> environment.Triton:
    """The pip-installed Triton with the compiled backend in the place of ours."""
    installed = environment.pip_installed(print)
    [option] = [a for a in installed.arguments if a.startswith("--backend-directory=")]
    backends = Path(option.partition("=")[2])
    shutil.copytree(backends / "python", at / "python")
    shutil.copytree(backends / "environment", at / "environment", symlinks=True)
    (at / "onnxruntime").mkdir()
    shutil.copy(Path(str(COMPILED)) / "libtriton_onnxruntime.so", at / "onnxruntime")
    packages = Path(installed.environment["PYTHONPATH"])
    [library] = packages.glob("onnxruntime/capi/libonnxruntime.so.1*")
    (at / "onnxruntime" / "libonnxruntime.so.1").symlink_to(library)
    return replace(
        installed,
        arguments=(f"--backend-directory={at}", *(a for a in installed.arguments if a != option)),
        environment={
            **installed.environment,
            "LD_LIBRARY_PATH": f"{installed.environment['LD_LIBRARY_PATH']}:{at / 'onnxruntime'}",
        },
    )


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return generated(int(os.environ.get("CONFIGURATIONS_SEED", "18")), int(os.environ.get("CONFIGURATIONS", "60")))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, cases: list[Case]) -> Both:
    """What both made of the cases."""
    return _looked(tmp_path_factory.mktemp("both"), cases, completes=False)


def _looked(root: Path, cases: list[Case], *, completes: bool) -> Both:
    both = []
    for name, triton in (("ours", environment.pip_installed(print)), ("theirs", official(root / "backends"))):
        for case in cases:
            add_as_it_is(root / name, case.name, case.graph, case.config)
        with serving(root / name, triton, completes=completes) as server:
            both.append({case.name: _look(server, case) for case in cases})
    ours, theirs = both
    return {name: (ours[name], theirs[name]) for name in ours}


def _look(server: Server, case: Case) -> Seen:
    if not server.serves(case.name):
        return Seen(server.why_not(case.name))
    answers = []
    for request in case.requests:
        [answer] = server.ask(case.name, request)
        if isinstance(answer, Exception):
            answers.append(str(answer.status()).rpartition(".")[2])  # type: ignore[attr-defined]
        else:
            answers.append({o.name: answer.as_numpy(o.name) for o in answer.get_response().outputs})
    return Seen("", tuple(answers), {k: v for k, v in server.config(case.name).items() if k != "runtime"})


def test_nothing_is_served_here_that_is_refused_there(seen: Both, cases: list[Case]) -> None:
    wrong = {name: theirs.refused for name, (ours, theirs) in seen.items() if theirs.refused and not ours.refused}
    assert not wrong, _told(wrong, cases)


def test_what_is_refused_here_alone_is_in_the_table(seen: Both, cases: list[Case]) -> None:
    alone = {name: ours.refused for name, (ours, theirs) in seen.items() if ours.refused and not theirs.refused}
    wrong = {name: reason for name, reason in alone.items() if not any(known in reason for known in STRICTER)}
    assert not wrong, _told(wrong, cases)


def test_answers_are_the_same_in_values_shapes_and_types(seen: Both, cases: list[Case]) -> None:
    wrong = {}
    for name, (ours, theirs) in seen.items():
        for mine, other in zip(ours.answers, theirs.answers, strict=bool(ours.answers and theirs.answers)):
            if not _same(mine, other):
                wrong[name] = f"{mine} here, {other} there"
    assert not wrong, _told(wrong, cases)
    compared = [answer for ours, theirs in seen.values() if ours.answers and theirs.answers for answer in ours.answers]
    assert sum(isinstance(answer, dict) for answer in compared) > len(cases) / 2, "there is something to compare"


def test_what_is_told_of_a_configuration_is_the_same_but_for_its_runtime(seen: Both, cases: list[Case]) -> None:
    """So what ours tells can be loaded there. Triton's core names the `runtime` of every Python-based backend."""
    served = {name: pair for name, pair in seen.items() if all(one.config for one in pair)}
    wrong = {
        name: f"{ours.config} here, {theirs.config} there"
        for name, (ours, theirs) in served.items()
        if ours.config != theirs.config
    }
    assert served and not wrong, _told(wrong, cases)


def test_what_is_completed_is_the_same(tmp_path: Path) -> None:
    bodies = {
        "batched": "(float[B,N] x) => (float[B,3] y) <int64[2] to = {-1, 3}> { y = Reshape(x, to) }",
        "fixed": "(float[2,3] x, string[2] names) => (float[2,3] y) { y = Identity(x) }",
        "scalar": "(float[3] x) => (float y) { y = ReduceSum <keepdims = 0> (x) }",
        "of_a_row": "(float[B,N] x) => (float[B] y) <int64[1] last = {1}> { y = ReduceSum <keepdims = 0> (x, last) }",
    }
    configs = {"empty": "", "one": "max_batch_size: 1", "many": "max_batch_size: 16", "half": HALF}
    cases = [Case(f"{b}_{c}", bodies[b], ON_THE_CPU + configs[c], ()) for b in bodies for c in configs]
    both = _looked(tmp_path, cases, completes=True)
    wrong = {
        name: f"{ours} here, {theirs} there" for name, (ours, theirs) in both.items() if not _completed(ours, theirs)
    }
    assert not wrong, _told(wrong, cases)
    assert sum(not ours.refused for ours, _ in both.values()) >= len(bodies)


def _completed(ours: Seen, theirs: Seen) -> bool:
    def sorted_tensors(config: dict[str, Any]) -> dict[str, Any]:  # NVIDIA's has them in no order
        kinds = {
            kind: sorted(config.get(kind, ()), key=lambda tensor: str(tensor["name"])) for kind in ("input", "output")
        }
        return {**config, **kinds}

    return bool(ours.refused) == bool(theirs.refused) and sorted_tensors(ours.config) == sorted_tensors(theirs.config)


def _same(mine: Any, other: Any) -> bool:
    """Compare two answers, or errors; in the table are whose fault a failed run is, and an output short of rows."""
    if isinstance(mine, str) or isinstance(other, str):
        return mine == other or (mine, other) in {("INVALID_ARGUMENT", "INTERNAL"), ("INTERNAL", "UNIMPLEMENTED")}
    return mine.keys() == other.keys() and all(
        mine[n].dtype == other[n].dtype and mine[n].shape == other[n].shape and _equal(mine[n], other[n]) for n in mine
    )


def _equal(mine: Any, other: Any) -> bool:
    if mine.dtype == object:  # NVIDIA's ends a string at a NUL
        return [text.split(b"\0")[0] for text in mine.ravel()] == [text.split(b"\0")[0] for text in other.ravel()]
    return np.array_equal(mine.view(f"u{mine.itemsize}"), other.view(f"u{other.itemsize}"))


def _told(wrong: dict[str, str], cases: list[Case]) -> str:
    models = {case.name: case for case in cases}
    return "\n\n".join(f"{name}: {said}\n{models[name].graph}\n{models[name].config}" for name, said in wrong.items())
