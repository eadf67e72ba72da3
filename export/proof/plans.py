"""What a plan is published as, and whether the server's TensorRT loads it."""

from contracts.engines.plans import DEFAULT_FILE, cc_model_filenames, same_version, version_of
from contracts.manifest import Engine, Gate

_AMPERE = 8.0


def server_gate(plan: bytes, server_tensorrt: str) -> Gate:
    """Check that the server's TensorRT can load the plan: it has to be the very version that built it."""
    built_by = version_of(plan) or "no TensorRT"
    return Gate("loads in the server's TensorRT", float(same_version(built_by, server_tensorrt)), 1, "at least",
                f"built by {built_by}, the server has {server_tensorrt}", id="server_tensorrt")  # fmt: skip


def own_file(facts: Engine) -> str:
    """Return the name under which the GPU that a plan was built on looks for it."""
    return cc_model_filenames().get(facts.compute_capability or "", DEFAULT_FILE)


def plan_files(facts: Engine) -> list[str]:
    """List the names a plan is published under, its own GPU's first.

    One that runs on Ampere and everything newer has the name of each, and the one that any other GPU falls back on.
    """
    if not facts.hardware_compatible:
        return [own_file(facts)]
    newer = [file for cc, file in cc_model_filenames().items() if float(cc) >= _AMPERE]
    return list(dict.fromkeys([own_file(facts), *newer, DEFAULT_FILE]))


def measured_on(facts: Engine) -> str:
    """Name the GPU that a plan was built and timed on."""
    if facts.compute_capability is None:
        return "an unknown GPU"
    return f"{facts.gpu or 'a GPU'} of compute capability {facts.compute_capability}"
