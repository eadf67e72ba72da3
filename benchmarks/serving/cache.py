"""What Triton's response cache brings and costs on each model of an ensemble.

Each way of caching is an ensemble of its own in one server, so that all are measured in turn, under the same
conditions. The load is HTTP, in closed loops. New requests have to be made by the thousand, which is done for images.
"""

import argparse
import io
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2
from tritonclient.http import InferenceServerClient

from benchmarks import own_server, results
from benchmarks.errors import MeasurementError
from benchmarks.serving import load, memory
from cli import tables
from cli.progress import track
from cli.tables import Table, console
from contracts import golden, layout
from deploy.triton import payload
from deploy.triton.control import Control
from deploy.triton.state import Running

CACHE_MB = 64
_NOTHING = "nothing"
_TRAFFIC = ("repeated", "new")
_REPEATED = 64  # images that are asked for again and again
_NEW = 6000  # a round, at most
_CONNECTIONS = 16
_ROUND_S = 1.5


@dataclass(frozen=True)
class CacheFigures:
    """One model cached, one kind of traffic; what each round gave."""

    on: str  # the model, or "nothing"
    traffic: str  # "repeated": every image was asked for before; "new": none was
    per_s: tuple[float, ...]  # requests at 16 connections
    p50_ms: tuple[float, ...]  # at one


@dataclass(frozen=True)
class CacheResult:
    """Every model cached in turn, and what the server's process took."""

    ensemble: str
    measured: tuple[CacheFigures, ...]
    own_mb: tuple[float, float]  # of the server's process, before and after


def main(options: argparse.Namespace) -> int:
    """Measure, print and keep."""
    result = measure(options.model, options.rounds)
    console().print(table(result))
    results.keep("cache", {"cache_mb": CACHE_MB, **asdict(result)})
    return 0


def measure(ensemble: str, rounds: int) -> CacheResult:
    """Send repeated and new images, cached nowhere, in the ensemble and in each of its steps.

    Raises:
        MeasurementError: it is no ensemble that takes images; an answer was wrong, or never came from the cache.
        DeployError, ManifestError: as `deploy.running.server.serving`.
    """
    random = np.random.default_rng(0)
    with _server(ensemble) as (up, ensembles):
        seen: dict[tuple[str, str], list[tuple[float, float]]] = {(on, t): [] for on in ensembles for t in _TRAFFIC}
        images = list(_images(random, _REPEATED))
        first = {on: load.with_answers(up.http, _requests(up, name, images)) for on, name in ensembles.items()}
        # An ensemble's answer from the cache is in other words: without the sequence's parameters.
        repeated = {on: load.with_answers(up.http, requests) for on, requests in first.items()}
        before_mb = _own_mb(up)
        for _ in track(range(rounds), "measuring", "rounds"):
            images = list(_images(random, _NEW))
            for on, name in ensembles.items():
                seen[on, "repeated"].append(_round(up, repeated[on], new=False))
                seen[on, "new"].append(_round(up, _requests(up, name, images), new=True))
        _check_hits(up)
        after_mb = _own_mb(up)
    measured = (CacheFigures(*key, *zip(*figures, strict=True)) for key, figures in seen.items())
    return CacheResult(ensemble, tuple(measured), (before_mb, after_mb))


def table(result: CacheResult) -> Table:
    """Lay out the medians, and what they are of those without a cache."""
    columns = [f"{t} images:\n{figure}" for t in _TRAFFIC for figure in ("requests/s", "×", "p50 ms")]
    title = f"{result.ensemble}: one model's answers cached; medians of {len(result.measured[0].per_s)} rounds"
    shown = tables.table("cached", *columns, title=title)
    by = {(cached.on, cached.traffic): cached for cached in result.measured}
    for on in dict.fromkeys(cached.on for cached in result.measured):
        cells = []
        for traffic in _TRAFFIC:
            per_s = median(by[on, traffic].per_s)
            ratio = per_s / median(by[_NOTHING, traffic].per_s)
            cells += [f"{per_s:,.0f}", f"{ratio:.2f}", f"{median(by[on, traffic].p50_ms):.2f}"]
        shown.add_row(on, *cells)
    return shown


@contextmanager
def _server(ensemble: str) -> Iterator[tuple[Running, dict[str, str]]]:
    """Run a server with every way of caching; yield it with {what is cached: the ensemble}."""
    with own_server.scratch_repository() as root:
        shutil.copytree(layout.model_repository(), root, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        ensembles = {on: _ensemble(root, ensemble, on) for on in (_NOTHING, ensemble, *_steps(root, ensemble))}
        with own_server.serving(root, cache_bytes=CACHE_MB * 1024 * 1024, ensembles=True) as up:
            yield up, ensembles


def _steps(root: Path, ensemble: str) -> list[str]:
    """Name the steps of an ensemble of one image after the other.

    Raises:
        MeasurementError: it is none.
    """
    path = root / ensemble / "config.pbtxt"
    config = text_format.Parse(path.read_text() if path.is_file() else "", model_config_pb2.ModelConfig())
    steps = [step.model_name for step in config.ensemble_scheduling.step]
    if not steps or [tensor.data_type for tensor in config.input] != [model_config_pb2.TYPE_STRING]:
        raise MeasurementError(
            f"{ensemble} is no ensemble that takes an image", note="new requests are made by the thousand, as images"
        )
    return steps


def _ensemble(root: Path, ensemble: str, on: str) -> str:
    """Write the ensemble that is cached so, and the step if it is one; return the ensemble's name."""
    if on == _NOTHING:
        return ensemble
    name = f"{on}_cached"
    _copy(root / on, name, cache=True)
    if on == ensemble:
        return name
    above = _copy(root / ensemble, f"{ensemble}_{on}", cache=False)
    config = above / "config.pbtxt"
    config.write_text(re.sub(rf'model_name: "{on}"', f'model_name: "{name}"', config.read_text()))
    return above.name


def _copy(model: Path, name: str, *, cache: bool) -> Path:
    copy = model.with_name(name)
    # The manifest and the golden requests are of the model that they were published for.
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("manifest.json", "model.sig", golden.FILE_NAME))
    for config in (copy / "config.pbtxt", *copy.glob("configs/*.pbtxt")):
        text = config.read_text().replace(f'name: "{model.name}"', f'name: "{name}"', 1)
        config.write_text(text + ("\nresponse_cache { enable: true }\n" if cache else ""))
    return copy


def _round(up: Running, requests: Sequence[load.Request], *, new: bool) -> tuple[float, float]:
    """Measure requests a second at 16 connections, and the median latency in ms at one."""
    figures = []
    rest = requests
    for connections in (1, _CONNECTIONS):
        log = load.closed_loop(up.http, rest, connections, _ROUND_S)
        # Nobody knows what is right of a new image.
        bad = log.outcome > load.Outcome.WRONG if new else log.outcome != load.Outcome.OK
        if bad.any():
            raise MeasurementError(f"{bad.sum()} of {len(bad)} answers were wrong or none")
        once = slice(len(rest)) if new else slice(None)  # what is sent again is not new
        figures.append((log.done_s[once], log.latency_s[once]))
        rest = requests[len(log.which) :] if new else requests
    (_, latency_s), (done_s, _) = figures
    return len(done_s) / float(done_s.max()), float(np.median(latency_s)) * 1e3


def _images(random: np.random.Generator, count: int) -> Iterator[bytes]:
    for pixels in random.integers(0, 256, (count, 28, 28), dtype=np.uint8):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG", compress_level=1)
        yield encoded.getvalue()


def _requests(up: Running, model: str, images: Sequence[bytes]) -> list[load.Request]:
    with InferenceServerClient(up.http) as client:
        made = payload.of_images(client.get_model_metadata(model), images, "images")
    return [load.build(request) for request in made.requests]


def _check_hits(up: Running) -> None:
    with Control(up) as control:
        hits = {s["name"]: int(s["inference_stats"]["cache_hit"]["count"]) for s in control.statistics()}
    if silent := [name for name, count in hits.items() if name.endswith("_cached") and not count]:
        raise MeasurementError(f"{', '.join(silent)}: nothing came from the cache")


def _own_mb(up: Running) -> float:
    return next(s.uss_bytes for s in memory.sample(up, 0) if s.name == "tritonserver") / 1e6
