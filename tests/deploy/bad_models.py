"""Models that do harm: each writes itself into a repository, beside good ones."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.conftest import write_model

# Answers with its input doubled; what it does besides is put in.
_CODE = """
import os, signal, time
import triton_python_backend_utils as pb_utils
{imports}

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if value.max() < 0:
            {poisoned}
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value * 2)])
"""
_EAT = "kept = [bytearray(2**24) for _ in range(2**20)]"
_LINES = ("terminate called after throwing an instance of 'std::bad_alloc'", "Signal (11) received.")
_SAY = "print({!r}, flush=True)".format("\n".join(_LINES))


@dataclass(frozen=True)
class Bad:
    """A model that does not load or does harm, and what of the reason is said."""

    write: Callable[[Path, str], object]  # given the repository and its name
    reason: str


def write(
    root: Path, name: str, *, imports: str = "", initialize: str = "pass", poisoned: str = "pass", more: str = ""
) -> Path:
    """Write a model that is good but for what is put in; its version directory."""
    code = _CODE.format(imports=imports, initialize=initialize, poisoned=poisoned)
    return write_model(root, name, code, more=more)


def _with_config(old: str, new: str) -> Callable[[Path, str], None]:
    def written(root: Path, name: str) -> None:
        write(root, name)
        config = root / name / "config.pbtxt"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new, 1))

    return written


def _with_code(**put_in: str) -> Callable[[Path, str], Path]:
    return lambda root, name: write(root, name, **put_in)


def mend(root: Path, name: str) -> None:
    """Make a good model of one that is bad."""
    shutil.rmtree(root / name)
    write(root, name)


# They only fail to load: the server goes on.
FAIL = {
    "missing_dims": Bad(_with_config("dims: [ 1 ]", ""), "must specify 'dims'"),
    "typo": Bad(_with_config("max_batch_size", "max_batch_sise"), "max_batch_sise"),
    "wrong_dtype": Bad(_with_config("TYPE_FP32", "TYPE_FP33"), "TYPE_FP33"),
    "missing_import": Bad(_with_code(imports="import no_such_module"), "No module named 'no_such_module'"),
    "raises": Bad(_with_code(initialize="raise ValueError('no weights')"), "no weights"),
    # Triton 2.51 survives most of these.
    "segfault": Bad(_with_code(initialize="os.kill(os.getpid(), signal.SIGSEGV)"), ""),
    "abort": Bad(_with_code(initialize="os.abort()"), ""),
}
# They take the server down while they are loaded.
CRASH = {
    "empty_agents": Bad(_with_config("output", "model_repository_agents { }\noutput"), "while it was loaded"),
}
HANG = Bad(_with_code(initialize="\n        while True: time.sleep(0.01)"), "it did not load within")
EAT = Bad(_with_code(initialize=_EAT), "")
SAY = Bad(_with_code(initialize=_SAY, poisoned=_SAY), "")
CRASH_LATER = Bad(_with_code(poisoned="os.kill(os.getpid(), signal.SIGSEGV)"), "its workers died")
EAT_LATER = Bad(_with_code(poisoned=_EAT), "for want of memory")
