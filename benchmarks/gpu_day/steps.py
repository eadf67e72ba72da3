"""The steps of a GPU day, in their order: what nobody could look at before comes first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step, taken in a process of its own.

    Attributes:
        name: Of its log and its result, and what `--only` takes.
        shows: What it looks at, in a line.
        limit_s: When it is ended, whatever it is at.
        run: "package.module:function"; it is given the Day and a Record.
        needs: What is looked for first, by names of `needs.py`: without one of them it is skipped.
    """

    name: str
    shows: str
    limit_s: float
    run: str
    needs: tuple[str, ...] = ()


def _step(name: str, shows: str, limit_s: float, run: str, *needs: str) -> Step:
    return Step(name, shows, limit_s, f"benchmarks.gpu_day.checks.{run}", needs)


STEPS = (
    _step("machine", "driver, GPUs, MIG, and the versions of everything between them and a model", 30, "machine:look"),
    _step("checkpoint", "a checkpoint, trained here where there is none", 150, "releases:checkpoint"),
    _step("export", "plans of every precision, built, proven and published", 240, "releases:export", "tensorrt"),
    _step("fp32", "FP32 without TF32 against the limits of the spec", 60, "network:fp32", "torch"),
    _step("fp16", "FP16 against our emulation of it, on the whole held-out split", 90, "network:fp16", "torch"),
    _step("timing", "the harness against events and graph replay, in PyTorch", 45, "network:timing", "cuda"),
    _step("plans", "the plan timed from Python, on the GPU alone, and in Triton", 60, "plans:timing", "release"),
    _step("answers", "the server's answers against the plan's own, at many batches", 90, "answers:look", "release"),
    _step("graphs", "CUDA graphs: captured, launched, by Triton's verbose log", 60, "graphs:look", "native", "plan"),
    _step("reload", "a version without CUDA graphs: reload, answers, time, roll back", 60, "reload:look", "release"),
    _step("wrong-plan", "a plan of another TensorRT is refused, the old one serves", 60, "reload:wrong_plan", "plan"),
    _step("drill", "upgrade, roll back, kill a worker and the server, under load", 120, "drill:look", "release"),
    _step("two-servers", "two servers on one GPU", 60, "servers:two", "release"),
    _step("metrics", "Triton's metrics of the GPU", 30, "servers:metrics", "release", "gpu"),
    _step("large-bodies", "HTTP bodies of more than 64 MB", 45, "servers:large_bodies"),
    _step("cuda-memory", "inputs in CUDA shared memory", 45, "cuda_memory:look", "release", "cuda"),
    _step("tests", "the tests that are marked `gpu`", 120, "machine:tests", "gpu"),
)
