"""This project's server over one release, and beside it a model that does nothing: what is left is the server's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import own_server
from benchmarks.peers.process import Tree
from benchmarks.peers.task import Question, Task
from benchmarks.releases import released
from cli.installing import locks
from contracts import layout, model_config, repository
from contracts.golden import GoldenRequest

NOTHING = "nothing"
_CONFIG = """name: "{name}"
backend: "python"
max_batch_size: {batch}
{tensors}
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 3 }} ]
"""
_MODEL = '''"""Gives the same answer to every request."""

import numpy as np
import triton_python_backend_utils as pb_utils

ANSWER = {answer}


class TritonPythonModel:
    def initialize(self, args):
        self.answer = {{name: np.array(values, dtype) for name, (values, dtype) in ANSWER.items()}}

    def execute(self, requests):
        # Tensors of its own for each: one that two responses share is torn.
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in self.answer.items()])
            for _ in requests
        ]
'''


@dataclass(frozen=True)
class Ours:
    """The server that is up."""

    http: str
    tree: Tree


@contextmanager
def serving(task: Task) -> Iterator[Ours]:
    """Serve the release that the task is of as `deploy up` does, and `nothing` beside it.

    Raises:
        DeployError, ManifestError: as `deploy.running.server.serving`.
    """
    with own_server.scratch_repository() as root:
        _copy(task, root)
        _write_nothing(task, root / NOTHING)
        with own_server.serving(root) as up:
            yield Ours(up.http, Tree(up.triton.pid))


def nothing_questions(task: Task) -> list[Question]:
    """Return the task's requests for the model that answers each with the first one's answer."""
    answers = task.questions[0].golden.answers
    return [
        Question(GoldenRequest(NOTHING, question.golden.inputs, answers), question.body) for question in task.questions
    ]


def _copy(task: Task, root: Path) -> None:
    """Copy what the release is made of; of the network this version alone."""
    release = released.asked(task.repository, task.shape.model)
    for name in release.models:
        shutil.copytree(task.repository / name, root / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for version in repository.versions(root / release.network):
        if version != release.version:
            shutil.rmtree(root / release.network / str(version))


def _write_nothing(task: Task, folder: Path) -> None:
    config = model_config.read(task.repository / task.shape.model / model_config.FILE_NAME)
    answer = {
        name: (values.tolist(), "O" if values.dtype.kind == "O" else values.dtype.str)
        for name, values in task.questions[0].golden.answers.items()
    }
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(_MODEL.format(answer=repr(answer)))
    bare = _tensors(config)
    (folder / "config.pbtxt").write_text(_CONFIG.format(name=NOTHING, batch=config.max_batch_size, tensors=bare))


def _tensors(config: object) -> str:
    """Return the inputs and outputs of a configuration alone, as text."""
    from google.protobuf import text_format

    bare = type(config)()
    bare.input.extend(config.input)  # type: ignore[attr-defined]
    bare.output.extend(config.output)  # type: ignore[attr-defined]
    return str(text_format.MessageToString(bare))


def versions() -> dict[str, str]:
    """Return the versions of the server and of what runs the graph in it, as locked."""
    names = ("nvidia-pytriton", "onnxruntime", "numpy", "pillow")
    entries = (entry.split()[0].split("==") for entry in locks.entries(layout.ROOT / "deploy" / "server.lock"))
    return {name: version for name, version in entries if name in names}
