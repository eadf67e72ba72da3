"""Bad models in a drill, put beside the good ones by hand: they may do themselves harm, and nobody else."""

import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass

from deploy.drill.kills import kill_server
from deploy.drill.server_copy import DrillCopy, Status
from deploy.errors import DrillError

_MOST_RESTARTS = 2  # to find out which model it was
_NOTICED_S = 1.5  # within which a supervisor that believed a worker's words would have acted
_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""
_CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x)])
"""


@dataclass(frozen=True)
class _Bad:
    name: str
    reason: str = ""  # what of the reason why it is left out is said
    config: str = _CONFIG
    code: str = _CODE


_DO_NOT_LOAD = (
    _Bad("drill_typo", "max_batch_sise", config=_CONFIG.replace("max_batch_size", "max_batch_sise")),
    _Bad("drill_no_dims", "must specify 'dims'", config=_CONFIG.replace("dims: [ 1 ]", "", 1)),
    _Bad("drill_import", "No module named 'no_such_module'", code=f"import no_such_module\n{_CODE}"),
)
# It says what a crashing server does, and goes on.
_TALKS = _Bad("drill_talks", code=f"print('terminate called\\nSignal (11) received.', flush=True)\n{_CODE}")
# Triton 2.51 ends while it loads one with this.
_CRASHES = _Bad("drill_crashes", config=f"{_CONFIG}\nmodel_repository_agents {{ }}\n")


def that_do_not_load(copy: DrillCopy) -> str:
    """Put models there that do not load, and one that prints the words of a crash; kill the server, and remove them.

    Nobody reloads: the server that takes the place of the killed one is the first to see them.

    Raises:
        DrillError: `deploy status` does not name one of them with its reason, or one has cost a restart.
    """
    before, bad = copy.status(), {model.name: model.reason for model in _DO_NOT_LOAD}
    for model in (*_DO_NOT_LOAD, _TALKS):
        _write(copy, model)
    kill_server(copy)
    copy.wait_until("the others are served", lambda status: status["ready"] and bad.keys() <= _failed(status))
    time.sleep(_NOTICED_S)
    after = copy.status()
    told = {group["name"]: group["reason"] for group in after["left_out"]}
    if unsaid := [name for name, reason in bad.items() if reason not in told.get(name, "")]:
        raise DrillError(f"`deploy status` does not say why {unsaid[0]} is left out", note=told.get(unsaid[0], ""))
    if _TALKS.name not in _ready(after):
        raise DrillError(f"{_TALKS.name} is not served, for words alone")
    if after["server_restarts"] != before["server_restarts"] + 1:
        raise DrillError("a model that does not load, or one that prints, has cost a restart")
    _heal(copy, bad, before)
    return f"left out with its reason: {', '.join(bad)}; served: {_TALKS.name}"


def that_takes_the_server_down(copy: DrillCopy) -> str:
    """Load a model at which the server crashes; it has to be left out by name, and then to be gone.

    Raises:
        DrillError: it is not, or it took more restarts than two.
    """
    before, began = copy.status(), time.monotonic()
    _write(copy, _CRASHES)
    copy.deploy("reload", _CRASHES.name)
    after = copy.wait_until(f"the others are served, and {_CRASHES.name} is judged", _is_judged)
    took_s, restarts = time.monotonic() - began, after["server_restarts"] - before["server_restarts"]
    _heal(copy, [_CRASHES.name], before)
    if restarts > _MOST_RESTARTS:
        raise DrillError(f"it took {restarts} restarts, and not {_MOST_RESTARTS}, to leave {_CRASHES.name} out")
    return f"left out after {restarts} restarts and {took_s:.1f} s: {_CRASHES.name}"


def _is_judged(status: Status) -> bool:
    """Tell whether the others are served, and the model is left out; a Triton that does not crash may serve it."""
    return status["ready"] and _CRASHES.name in (_failed(status) | _ready(status))


def _write(copy: DrillCopy, model: _Bad) -> None:
    version = copy.repository / model.name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(model.code)
    (version.parent / "config.pbtxt").write_text(model.config)  # last: it makes a model of the folder


def _heal(copy: DrillCopy, names: Collection[str], before: Status) -> None:
    """Remove models, and see that all is as it was before them, by the same server."""
    pid = copy.status()["pid"]
    for name in names:
        shutil.rmtree(copy.repository / name)
    after = copy.wait_until(
        "nobody misses what was removed", lambda status: status["ready"] and _failed(status) == _failed(before)
    )
    if after["pid"] != pid:
        raise DrillError("the server was restarted for models that were removed")


def _failed(status: Status) -> set[str]:
    return {name for group in status["left_out"] if group["failed"] for name in group["models"]}


def _ready(status: Status) -> set[str]:
    return {model["name"] for model in status["models"] if model["state"] == "READY"}
