"""The main job from end to end on real data: train, export, serve, ask, compare. Run it with `make demo`.

  make demo FAMILY=NAME      of another family than the default

The stages run as a user would run them, one command after the other; this file only reads what they leave on
disk and checks that what is served is what was proven. Nothing stays running.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli import plots, progress, tables
from cli.plots import GREEN, VERMILION
from cli.run import run_command_line
from cli.tables import Table, Text
from clients import Client, ClientError, Prediction
from clients.settings import Protocol
from contracts import golden, layout, manifest, repository
from contracts.errors import ProjectError
from contracts.golden import GoldenRequest
from contracts.judging import metric, tasks
from contracts.judging.metric import Metric
from contracts.manifest import Manifest
from contracts.samples import Batch
from contracts.spec import ModelSpec
from deploy.running import server
from deploy.triton import state
from deploy.triton.ports import free_ports
from deploy.triton.settings import Settings
from training import families
from training.families import FAMILIES

EXAMPLES = 10_000  # at most: of images the whole test split, so the same as the offline accuracy is of
SHOWN = 10
MAX_DIFFERENCE = {True: 0.1, False: 0.001}  # of a share, in points; of another metric, in its unit
_ROWS, _PATIENCE_S = 256, 300  # that are asked for at once, and for how long

console = tables.console(110)

Clients = Mapping[Protocol, Client]


@dataclass(frozen=True)
class Served:
    """How a family is served: its figure on the test split, some answers, and a picture of them where they are images.

    Attributes:
        what: "images" or "samples".
    """

    figure: float
    count: int
    what: str
    table: Table
    picture: Path | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--again", action="store_true", help="export and serve what was trained last; trains nothing")
    parser.add_argument("--family", choices=list(FAMILIES), default=layout.DEFAULT_FAMILY, help="default: %(default)s")
    options, flags = parser.parse_known_args(arguments)
    family, started = options.family, time.monotonic()
    if os.geteuid() == 0:
        os.environ.setdefault("SERVER_USER", "root")  # a checkout of root's, which no other user may read
    if (up := state.running()) is not None:
        raise ProjectError(f"a server is up already (process {up.triton.pid})", hint="stop it: python -m deploy down")
    release = _make(family, [] if options.again else _presets(family), flags)
    _stage(3, f"Serve version {release.version} with a real Triton, and send it the test split")
    _run("training", "examples", family, "--count", str(EXAMPLES))
    requests = [r for model in (family, release.model) for r in golden.find(layout.model_repository(), model)]
    served, wrong = _ask(family, requests)
    judged = _metric(family)
    result = {
        f"served_{judged.name}": served.figure,
        f"offline_{judged.name}": release.variant_for("model.onnx").score,
        f"served_{served.what}": served.count,
        "golden_requests": len(requests),
        "wrong_answers": wrong,
        "published_version": release.version,
        "variants": [asdict(variant) | {"passed": variant.passed} for variant in release.variants],
        "seconds": round(time.monotonic() - started, 1),
    }
    passed = _report(release, judged, served, result)
    (layout.artifacts() / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    kept = [layout.artifacts() / "demo.json", *([served.picture] if served.picture else [])]
    console.print(f"Kept in {' and '.join(layout.shown(path) for path in kept)}")
    if passed:
        console.print("Next: serve it yourself, .venv/bin/python -m deploy up")
    print(json.dumps(result))
    return 0 if passed else 1


def _make(family: str, presets: Sequence[str], flags: Sequence[str]) -> Manifest:
    """Train and export what the presets say, or export what was trained last; return the release."""
    if presets:
        what = "a small network" if len(presets) == 1 else f"{len(presets)} models"
        _stage(1, f"Train {what} of the family {family}")
    for number, preset in enumerate(presets, start=1):
        _run("training", "fit", family, "--preset", preset, *flags)
        if number < len(presets):  # the last one is what serves
            _run("export", family)
    _stage(2, f"Export: {_precisions(families.spec(family))}")
    _run("export", family)
    if len(presets) > 1:
        _run("training", "compare", family)
    return manifest.verify(_newest_release(layout.model_repository(), family))


def _ask(family: str, requests: Sequence[GoldenRequest]) -> tuple[Served, list[str]]:
    """Serve what is published, ask for the test split and the golden requests; return how, and the wrong answers."""
    http, grpc, metrics = free_ports()  # whoever else uses the usual ones
    settings = Settings(device="cpu", http_port=http, grpc_port=grpc, metrics_port=metrics)
    with server.serving(settings, say=console.print) as up, ExitStack() as connections:
        addresses: dict[Protocol, str] = {"grpc": up.grpc, "http": up.http}
        clients = {
            protocol: connections.enter_context(Client(f"{protocol}://{address}"))
            for protocol, address in addresses.items()
        }
        served = _serve(clients, family)
        return served, [told for client in clients.values() for told in _wrong_answers(client, requests)]


def _stage(number: int, title: str) -> None:
    console.print(f"\n{number}/3  {title}", style="bold", soft_wrap=True)


def _presets(family: str) -> list[str]:
    """Return what is trained, in order: each model of a family that has several, else its small preset."""
    return sorted(path.stem for path in (layout.model_params() / family).glob("*.yaml")) or ["demo"]


def _precisions(spec: ModelSpec) -> str:
    names = [precision.upper() for precision in spec.limits]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    compiled = " and compiled by TensorRT-RTX" if spec.without_tensorrt is None else ""
    return f"{listed}, {'each ' if names[1:] else ''}proven on the test split{compiled}"


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=layout.ROOT, check=False)
    if done.returncode:
        raise ProjectError(f"`python -m {' '.join(arguments)}` failed with exit code {done.returncode}")


def _newest_release(root: Path, family: str) -> Path:
    """Find the newest version of the network that the family's ensemble rests on."""
    for directory in sorted(path for path in root.glob("*") if path.is_dir()):
        newest = directory / str(max(repository.versions(directory), default=0))
        if (newest / manifest.FILE_NAME).exists() and manifest.read(newest).family == family:
            return newest
    raise ProjectError(f"no release of {family} lies in {layout.shown(root)}", hint=f"python -m export {family}")


def _metric(family: str) -> Metric:
    found = families.spec(family).metric
    if found is None:
        raise ProjectError(f"the family {family} has no metric", hint="its spec names one")
    return found


def _serve(clients: Clients, family: str) -> Served:
    """Send the test split through the family's ensemble: as images where `training examples` wrote some."""
    images, labels = _examples(layout.examples() / family)
    if not all(path.suffix == ".png" for path in images):
        return _serve_samples(clients, family)
    shown = {
        protocol: [client.classify(path.read_bytes(), model=family) for path in images[:SHOWN]]
        for protocol, client in clients.items()
    }
    accuracy = _served_accuracy(clients["grpc"], family, images, labels)
    table = _labels_table(family, shown, labels)
    picture = _draw(images[:SHOWN], labels[:SHOWN], shown["grpc"], layout.artifacts() / "demo.png")
    return Served(accuracy, len(images), "images", table, picture)


def _serve_samples(clients: Clients, family: str) -> Served:
    """Send raw examples, which are in the order of the test split; the ensemble's answer is the network's."""
    loaded, judged = families.load(family), _metric(family)
    split = loaded.data().split("test")
    if loaded.raw_examples is None or split.targets is None:
        raise ProjectError(f"the family {family} has no examples of what clients send, or nothing is true of them")
    raw, output = loaded.raw_examples(len(split)), loaded.spec.answer_output
    shown = {p: client.infer(family, _rows(raw, slice(SHOWN)), outputs=[output]) for p, client in clients.items()}
    starts = progress.track(range(0, len(split), _ROWS), "asking", f"× {_ROWS} samples")
    parts = [
        clients["grpc"].infer(family, _rows(raw, slice(start, start + _ROWS)), outputs=[output], timeout_s=_PATIENCE_S)
        for start in starts
    ]
    answers = [{output: np.concatenate([part[output] for part in parts])}]
    targets = [metric.joined(split.targets)]
    scores = judged.scores(tasks.predicted(answers, loaded.spec), targets)
    table = _answers_table(family, raw, {p: answer[output] for p, answer in shown.items()})
    return Served(judged.value(scores, targets), len(split), "samples", table)


def _rows(batch: Batch, part: slice) -> Batch:
    return {name: values[part] for name, values in batch.items()}


def _examples(directory: Path) -> tuple[list[Path], list[str]]:
    with (directory / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [directory / row["file"] for row in rows], [row["label"] for row in rows]


def _served_accuracy(client: Client, family: str, images: list[Path], labels: list[str]) -> float:
    outcomes = client.classify_many((path.read_bytes() for path in images), model=family)
    correct = 0
    answers = progress.track(outcomes, "classifying", "images", total=len(images))
    for label, outcome in zip(labels, answers, strict=True):
        if isinstance(outcome, ClientError):
            raise outcome
        correct += outcome.label == label
    return correct / len(images)


def _wrong_answers(client: Client, requests: Sequence[GoldenRequest]) -> Iterator[str]:
    """Send the release's golden requests, and say what is wrong with an answer."""
    for request in requests:
        told = request.fault(client.infer(request.model, request.inputs, outputs=[*request.answers]))
        if told:
            yield f"{request.model}: {told}"


def _labels_table(family: str, shown: Mapping[Protocol, list[Prediction]], labels: list[str]) -> Table:
    headings = ("true label", *(f"over {protocol}" for protocol in shown))
    table = tables.table(*headings, title=f"Ten test images through the ensemble {family!r}", left=len(headings))
    for row, label in enumerate(labels[:SHOWN]):
        cells = []
        for predictions in shown.values():
            answer = predictions[row]
            cells.append(Text.assemble(tables.mark(answer.label == label), f" {answer.label} {answer.score:.3f}"))
        table.add_row(label, *cells)
    return table


def _answers_table(family: str, raw: Batch, shown: Mapping[Protocol, Any]) -> Table:
    headings = ("request", *(f"over {protocol}" for protocol in shown))
    table = tables.table(*headings, title=f"Ten test samples through the ensemble {family!r}", left=len(headings))
    for row in range(len(next(iter(shown.values())))):
        asked = " ".join(_as_text(values[row].ravel()[0]) for values in raw.values())
        table.add_row(asked if len(asked) <= 50 else f"{asked[:49]}…", *(_numbers(a[row]) for a in shown.values()))
    return table


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else f"{value:.4g}"


def _numbers(values: Any) -> str:
    flat = values.ravel()
    return f"{flat[0]:.4f}" if flat.size == 1 else f"[{flat[0]:.4f}, {flat[1]:.4f}, … {flat.size}]"


def _report(release: Manifest, judged: Metric, served: Served, result: dict[str, Any]) -> bool:
    console.print()
    console.print(served.table)
    directory = layout.model_repository() / release.model / str(release.version)
    report = layout.shown(directory / "report.html")
    figure, offline = result[f"served_{judged.name}"], result[f"offline_{judged.name}"]
    limit, scale, unit = MAX_DIFFERENCE[judged.share], 100 if judged.share else 1, " points" if judged.share else ""
    difference = abs(figure - offline) * scale
    wrong, requests = result["wrong_answers"], result["golden_requests"]
    within: bool = round(difference, 9) <= limit
    console.print(
        f"Published {release.model} version {release.version} ({release.choices[0].reason})\n"
        f"{judged.name.replace('_', ' ').capitalize()} on {served.count:,} test {served.what}: served {figure:.4f}, "
        f"offline {offline:.4f}; {difference:.{2 if judged.share else 6}f}{unit} apart, "
        f"{'within' if within else 'OVER'} {limit}\n"
        f"Golden requests, over both protocols: {requests} sent, {tables.mark(not wrong)} {len(wrong)} answers wrong\n"
        f"All of it took {result['seconds']:.0f} s. Everything that was proven, to look at: {report}",
        soft_wrap=True,
    )
    return within and not wrong


def _draw(images: list[Path], labels: list[str], predictions: list[Prediction], path: Path) -> Path:
    """Draw the images with what they are and what the server said of them."""
    from matplotlib.image import imread

    with plots.figure(10, 5, style={"axes.grid": False}) as figure:
        axes = figure.subplots(2, SHOWN // 2).flat
        for axis, image, label, answer in zip(axes, images, labels, predictions, strict=True):
            axis.imshow(imread(image), cmap="gray")
            colour = GREEN if answer.label == label else VERMILION
            axis.set_title(f"{answer.label} {answer.score:.2f}", color=colour)
            axis.set_xlabel(f"is: {label}")
            axis.set(xticks=[], yticks=[])
        figure.savefig(path)
    return path


if __name__ == "__main__":
    run_command_line(main, ProjectError)
