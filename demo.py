"""The main job from end to end on real data: train, export, serve, classify, compare. Run it with `make demo`.

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli import plots, progress, tables
from cli.plots import GREEN, VERMILION
from cli.run import run_command_line
from cli.tables import Text
from clients import Client, ClientError, Prediction
from clients.settings import Protocol
from contracts import golden, layout, manifest, repository
from contracts.errors import ProjectError
from contracts.golden import GoldenRequest
from contracts.manifest import Manifest
from deploy.running import server
from deploy.triton import state
from deploy.triton.ports import free_ports
from deploy.triton.settings import Settings

FAMILY = layout.DEFAULT_FAMILY
SERVED_IMAGES = 10_000  # the whole test split: the same images as the offline accuracy
SHOWN = 10
MAX_DIFFERENCE_POINTS = 0.1

console = tables.console(110)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--again", action="store_true", help="export and serve what was trained last; trains nothing")
    options, flags = parser.parse_known_args(arguments)
    started = time.monotonic()
    if os.geteuid() == 0:
        os.environ.setdefault("SERVER_USER", "root")  # a checkout of root's, which no other user may read
    if (up := state.running()) is not None:
        raise ProjectError(f"a server is up already (process {up.triton.pid})", hint="stop it: python -m deploy down")
    if not options.again:
        _stage(1, f"Train a small network of the family {FAMILY}")
        _run("training", "fit", FAMILY, "--preset", "demo", *flags)
    _stage(2, "Export: FP32, FP16 and INT8, each proven on the test split and compiled by TensorRT-RTX")
    _run("export", FAMILY)
    release = manifest.verify(_newest_release(layout.model_repository()))
    _stage(3, f"Serve version {release.version} with a real Triton, and send it {SERVED_IMAGES:,} test images")
    _run("training", "examples", FAMILY, "--count", str(SERVED_IMAGES))
    images, labels = _examples(layout.examples() / FAMILY)
    http, grpc, metrics = free_ports()  # whoever else uses the usual ones
    settings = Settings(device="cpu", http_port=http, grpc_port=grpc, metrics_port=metrics)
    with server.serving(settings, say=console.print) as up, ExitStack() as connections:
        addresses: dict[Protocol, str] = {"grpc": up.grpc, "http": up.http}
        clients = {
            protocol: connections.enter_context(Client(f"{protocol}://{address}"))
            for protocol, address in addresses.items()
        }
        shown = {
            protocol: [client.classify(path.read_bytes()) for path in images[:SHOWN]]
            for protocol, client in clients.items()
        }
        served = _served_accuracy(clients["grpc"], images, labels)
        requests = [r for model in (FAMILY, release.model) for r in golden.find(layout.model_repository(), model)]
        wrong = [told for client in clients.values() for told in _wrong_answers(client, requests)]
    result = {
        "served_accuracy": served,
        "offline_accuracy": release.variant_for("model.onnx").score,
        "served_images": len(images),
        "golden_requests": len(requests),
        "wrong_answers": wrong,
        "published_version": release.version,
        "variants": [asdict(variant) | {"passed": variant.passed} for variant in release.variants],
        "seconds": round(time.monotonic() - started, 1),
    }
    passed = _report(release, shown, labels, result)
    picture = _draw(images[:SHOWN], labels[:SHOWN], shown["grpc"], layout.artifacts() / "demo.png")
    (layout.artifacts() / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"Kept in {layout.shown(layout.artifacts() / 'demo.json')} and {layout.shown(picture)}")
    if passed:
        console.print("Next: serve it yourself, .venv/bin/python -m deploy up")
    print(json.dumps(result))
    return 0 if passed else 1


def _stage(number: int, title: str) -> None:
    console.print(f"\n{number}/3  {title}", style="bold", soft_wrap=True)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=layout.ROOT, check=False)
    if done.returncode:
        raise ProjectError(f"`python -m {' '.join(arguments)}` failed with exit code {done.returncode}")


def _newest_release(root: Path) -> Path:
    """Find the newest version of the network that the family's ensemble rests on."""
    for directory in sorted(path for path in root.glob("*") if path.is_dir()):
        newest = directory / str(max(repository.versions(directory), default=0))
        if (newest / manifest.FILE_NAME).exists() and manifest.read(newest).family == FAMILY:
            return newest
    raise ProjectError(f"no release of {FAMILY} lies in {layout.shown(root)}", hint=f"python -m export {FAMILY}")


def _examples(directory: Path) -> tuple[list[Path], list[str]]:
    with (directory / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [directory / row["file"] for row in rows], [row["label"] for row in rows]


def _served_accuracy(client: Client, images: list[Path], labels: list[str]) -> float:
    outcomes = client.classify_many(path.read_bytes() for path in images)
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


def _report(
    release: Manifest, shown: dict[Protocol, list[Prediction]], labels: list[str], result: dict[str, Any]
) -> bool:
    console.print()
    headings = ("true label", *(f"over {protocol}" for protocol in shown))
    table = tables.table(*headings, title=f"Ten test images through the ensemble {FAMILY!r}", left=len(headings))
    for row, label in enumerate(labels[:SHOWN]):
        cells = []
        for predictions in shown.values():
            answer = predictions[row]
            cells.append(Text.assemble(tables.mark(answer.label == label), f" {answer.label} {answer.score:.3f}"))
        table.add_row(label, *cells)
    console.print(table)
    directory = layout.model_repository() / release.model / str(release.version)
    report = layout.shown(directory / "report.html")
    difference = abs(result["served_accuracy"] - result["offline_accuracy"]) * 100
    wrong, requests = result["wrong_answers"], result["golden_requests"]
    within: bool = difference <= MAX_DIFFERENCE_POINTS
    console.print(
        f"Published {release.model} version {release.version} ({release.choices[0].reason})\n"
        f"Accuracy on {result['served_images']:,} test images: served {result['served_accuracy']:.4f}, "
        f"offline {result['offline_accuracy']:.4f}; {difference:.2f} points apart, "
        f"{'within' if within else 'OVER'} {MAX_DIFFERENCE_POINTS}\n"
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
