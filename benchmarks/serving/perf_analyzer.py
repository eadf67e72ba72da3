"""NVIDIA's perf_analyzer: found or installed, run once a protocol and concurrency, read back.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/perf_analyzer/docs/README.html
"""

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import MeasurementError, ToolError
from benchmarks.workload import Workload
from clients.core.tensors import encoded_strings
from contracts import layout
from contracts.golden import GoldenRequest
from deploy.neighbours import direct
from deploy.triton import environment
from deploy.triton.payload import Tensors

# Current perf-analyzer wheels need glibc 2.38 (Ubuntu 24.04); on an older one pip takes an empty placeholder.
# The wheel of this client release carries a binary for glibc 2.34 and later.
_FALLBACK = "tritonclient==2.50.0"
_ITS_HASH = "sha256:421fbb69ae6ab8cdb2c35b82134fcef2fe11e7af7718b1fcbc53335ab9bfe889"  # of the wheel that is run
_WRONG_ANSWER = ("match expected output", "match expected size")  # in its words
_LIBRARIES = {"libb64-*": "libb64.so.0d", "libcudart-*": "libcudart.so.12"}  # as the wheel of Triton names them


@dataclass(frozen=True)
class PerfAnalyzer:
    """A perf_analyzer that runs on this machine."""

    executable: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What the clients saw at one concurrency."""

    protocol: str
    concurrency: int
    throughput_per_s: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float


def find() -> PerfAnalyzer:
    """Find perf_analyzer on PATH or beside this Python (`pip install perf-analyzer`), else get one for glibc 2.34.

    Raises:
        ToolError: there is none and it could not be installed.
    """
    beside = Path(sys.executable).parent / "perf_analyzer"
    found = shutil.which("perf_analyzer") or (beside if beside.exists() else None)
    return PerfAnalyzer(Path(found)) if found else _installed()


def checkable(sent: Workload, protocol: str) -> tuple[str, ...]:
    """Name the outputs that it can check, by its `validation_data`: those without a tolerance, as it compares bytes.

    It needs to know their shapes beforehand, and over HTTP all outputs or none.
    """
    known = [
        tensor.name for tensor in sent.metadata.outputs if -1 not in tensor.shape[1 if sent.max_batch_size else 0 :]
    ]
    names = tuple(name for name in known if all(_has_to_be_equal(request, name) for request in sent.requests))
    return names if protocol == "grpc" or len(names) == len(sent.metadata.outputs) else ()


def write_requests(sent: Workload, count: int, checked: Sequence[str], path: Path) -> Path:
    """Write perf_analyzer's input file: requests of a sample that are sent in turn, `count` at most.

    Args:
        checked: The outputs whose answers it shall check.
    """
    rows, batched = sent.rows[:count], bool(sent.max_batch_size)
    written: dict[str, object] = {"data": [_tensors(row.inputs, batched) for row in rows]}
    if checked:
        right = [{name: row.answers[name] for name in checked} for row in rows]
        written["validation_data"] = [_tensors(answers, batched) for answers in right]
    path.write_text(json.dumps(written))
    return path


def measure(
    tool: PerfAnalyzer,
    model: str,
    protocol: str,
    address: str,
    concurrency: int,
    requests: Path,
    window_ms: int,
) -> Measurement:
    """Run three windows of closed-loop load with `concurrency` requests under way; return their mean.

    perf_analyzer's own stability test is off: on a shared machine it ends without a figure. The spread
    between repeated runs says what such a figure is worth.

    Raises:
        MeasurementError: perf_analyzer failed, with what it said, or found a wrong answer.
    """
    with tempfile.NamedTemporaryFile(suffix=".csv") as table:
        command = [
            str(tool.executable),
            *("-m", model, "-i", protocol, "-u", address),
            *("--input-data", str(requests), "--concurrency-range", str(concurrency)),
            *("--measurement-interval", str(window_ms), "--stability-percentage", "999"),
            *("-f", table.name),
        ]
        run = subprocess.run(
            command,
            env={**direct.environment(os.environ), **tool.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        rows = list(csv.DictReader(Path(table.name).read_text().splitlines()))
    if run.returncode != 0 or not rows:
        said = (run.stderr.strip() or run.stdout.strip()).splitlines()[-3:]
        if any(wrong in line for line in said for wrong in _WRONG_ANSWER):
            raise MeasurementError(
                f"{model} gives wrong answers at concurrency {concurrency} over {protocol}", note="\n  ".join(said)
            )
        raise MeasurementError(
            f"perf_analyzer failed at concurrency {concurrency} over {protocol}",
            note="\n  ".join(said) or f"exit code {run.returncode}",
            hint="python -m deploy status",
        )
    [row] = rows
    percentiles = {p: float(row[f"p{p} latency"]) / 1e3 for p in (50, 90, 95, 99)}
    throughput = float(row["Inferences/Second"])
    return Measurement(protocol, concurrency, throughput, *percentiles.values())


def _has_to_be_equal(request: GoldenRequest, output: str) -> bool:
    return output in request.answers and not request.tolerance.get(output)


def _tensors(tensors: Tensors, batched: bool) -> dict[str, object]:
    return {
        name: {
            "content": {"b64": base64.b64encode(_raw(values)).decode()},
            "shape": [*values.shape[1:]] if batched else [*values.shape],
        }
        for name, values in tensors.items()
    }


def _raw(values: NDArray[Any]) -> bytes:
    """Lay values out as Triton has them: each element of BYTES carries its length before it, 4 bytes, little-endian."""
    return encoded_strings(values) if values.dtype == np.object_ else values.tobytes()


def _installed() -> PerfAnalyzer:
    home = layout.artifacts() / "tools" / "perf_analyzer"
    libraries, executable = home / "lib", home / "perf_analyzer"
    if not all(path.exists() for path in (executable, *(libraries / name for name in _LIBRARIES.values()))):
        print("Installing perf_analyzer (once) …", file=sys.stderr, flush=True)
        shutil.rmtree(home, ignore_errors=True)
        libraries.mkdir(parents=True)
        _copy_libraries(libraries)
        _extract(executable)
    return PerfAnalyzer(executable, {"LD_LIBRARY_PATH": str(libraries)})


def _copy_libraries(directory: Path) -> None:
    """Copy libb64 and libcudart, which the pip-installed Triton has under hashed names, as the binary names them."""
    triton = environment.pip_installed(say=lambda line: print(line, file=sys.stderr, flush=True))
    bundled = Path(triton.environment["LD_LIBRARY_PATH"].split(os.pathsep)[0])
    for pattern, name in _LIBRARIES.items():
        found = next(bundled.glob(pattern), None)
        if found is None:
            raise ToolError(f"{bundled} has no {pattern}, which perf_analyzer needs")
        shutil.copy2(found, directory / name)


def _extract(executable: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        wanted = Path(scratch, "requirements.txt")
        wanted.write_text(f"{_FALLBACK} --hash={_ITS_HASH}\n")
        pip += ["--platform", "manylinux1_x86_64", "--dest", scratch, "--require-hashes", "--requirement", str(wanted)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if done.returncode != 0 or wheel is None:
            raise ToolError(
                f"could not download {_FALLBACK}, whose wheel carries perf_analyzer",
                note="\n".join(done.stderr.strip().splitlines()[-2:]),
                hint="is the package index reachable? Or put a perf_analyzer on PATH",
            )
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith("bin/perf_analyzer"))
            partial = executable.with_suffix(".partial")
            partial.write_bytes(archive.read(member))
    partial.chmod(0o755)
    partial.rename(executable)  # in one step: what is there is whole
