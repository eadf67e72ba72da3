"""A Python step in this process: the class Step of its step.py, which model.py runs where the step is by itself."""

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from python_based.errors import ModelError

from one_process.call import Call
from one_process.failures import Failure, printable

if TYPE_CHECKING:
    from one_process.pipeline import Arrays

_MODULE = "step"


class PythonStep:
    """A step whose code lies in the version of its model.

    Raises:
        ModelError: it does not load.
    """

    def __init__(self, call: Call) -> None:
        module = _imported(call.folder / call.version, call.model)
        self._called: str = module.CALLED
        self._refused, self._failed = getattr(module, "Refused", ()), getattr(module, "Failed", ())
        try:
            self._step = module.Step(call.folder, call.config)
        except ValueError as error:
            raise ModelError(f"{call.model}: {error}") from error

    def answer(self, requests: "Sequence[Arrays]") -> "Sequence[Arrays | Exception]":
        """Return what each request gets. Where the step has a bug they are asked by themselves. Raises nothing."""
        try:
            answers: Sequence[Any] = self._step.answer(requests)
            if len(answers) != len(requests) or not all(isinstance(each, Mapping | Exception) for each in answers):
                raise TypeError("an answer or an exception for each request is expected")
        except Exception as error:
            if len(requests) > 1:
                return [answer for request in requests for answer in self.answer([request])]
            answers = [error]
        return [self._told(answer) if isinstance(answer, Exception) else answer for answer in answers]

    def _told(self, error: Exception) -> Failure:
        if isinstance(error, self._refused):
            return Failure(str(error), f"refused: {printable(error, 400)}", its_fault=True)
        if isinstance(error, self._failed):
            return Failure(str(error))
        where = "".join(traceback.format_tb(error.__traceback__))
        log = f"{type(error).__name__}: {printable(error)}\n{where}"
        return Failure(f"{self._called} failed: {type(error).__name__}", log)


def _imported(version: Path, model: str) -> ModuleType:
    """Import a step's modules as if no other step had any: those of two may have the same names."""
    if not (version / f"{_MODULE}.py").is_file():
        raise ModelError(f"{model} has no {_MODULE}.py, which one process could run; take configs/cpu.pbtxt away")
    before = {*sys.modules}
    sys.path.insert(0, str(version))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(_MODULE)
    finally:
        sys.path.remove(str(version))
        for name in {*sys.modules} - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(f"{version}/"):
                del sys.modules[name]
        sys.path.append(str(version))  # for what is imported only when it is needed
