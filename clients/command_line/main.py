"""Send requests to a running Triton server.

  python -m clients classify shoe.png shirts/         images, and folders of .png, .jpg and .jpeg
  python -m clients classify --csv shirts/ > answers.csv
  cat shoe.png | python -m clients classify -
  python -m clients infer MODEL --input image=@shoe.png
  python -m clients predict MODEL NAME=VALUE …        from what a caller knows; tables of its release fill the rest
  python -m clients predict MODEL --rows FILE.csv --csv > answers.csv
  python -m clients embed "a cat" "a kitten"          texts as vectors, a JSON array a line
  python -m clients embed "a cat" --among notes.txt   a small search: the lines of a file that mean about the same
  python -m clients models                            what it serves, with inputs and outputs
  python -m clients health                            whether it is live and ready

Exit codes: 0 if every request succeeded (`health`: if every server is ready), 1 if one failed, 2 for a wrong option,
130 after Ctrl-C.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cli import commands
from cli.commands import Command, positive_count
from cli.run import run_command_line
from contracts.errors import ProjectError
from contracts.layout import DEFAULT_FAMILY

_CLASSIFIERS = "a model with the input `image`, BYTES [B, 1], and the outputs `top_labels` and `top_scores`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; the exit code."""
    return commands.run("python -m clients", __doc__, COMMANDS, arguments)


def console() -> NoReturn:
    """Run as a program of its own: `main`, then exit."""
    run_command_line(main, ProjectError)


def _classify(classify: argparse.ArgumentParser) -> None:
    classify.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, folders of them, or - for an image on standard input"
    )
    classify.add_argument(
        "--model",
        default=DEFAULT_FAMILY,
        help=f"{_CLASSIFIERS} (default: {DEFAULT_FAMILY}); for other models use `infer`",
    )
    classify.add_argument(
        "--batch", type=positive_count, default=16, metavar="N", help="images per request (default: 16)"
    )
    form = classify.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    form.add_argument("--csv", action="store_true", help="path, label, score, error, version on stdout")
    _timeout(classify)
    _connection(classify)


def _infer(infer: argparse.ArgumentParser) -> None:
    infer.add_argument("model", metavar="MODEL", help="its name; `models` lists them")
    infer.add_argument("--version", default="", metavar="NUMBER", help="version of the model (default: the newest)")
    infer.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="JSON, as in pixels=[[0, 1]]; or @FILE: an array if it is .npy, else its bytes, as one row. "
        "Without any: a JSON object of all inputs on standard input",
    )
    infer.add_argument(
        "--output", action="append", default=[], metavar="NAME", help="output to return; repeatable (default: all)"
    )
    form = infer.add_mutually_exclusive_group()
    form.add_argument(
        "--save", type=Path, metavar="FILE.npz", help="save the outputs as arrays, instead of printing JSON"
    )
    form.add_argument("--json", action="store_true", help="also which model and version answered, beside `outputs`")
    _timeout(infer)
    _connection(infer)


def _predict(predict: argparse.ArgumentParser) -> None:
    predict.add_argument("model", metavar="MODEL", help="one whose release declares what its callers know")
    predict.add_argument(
        "entities", nargs="*", metavar="NAME=VALUE", help="what is known; without any, it says what there is to know"
    )
    predict.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="many: a CSV file with a line of names, or a JSON object a line; - for standard input",
    )
    predict.add_argument(
        "--release",
        type=Path,
        metavar="DIRECTORY",
        help="of the version whose declaration and tables are taken (default: the newest in the model repository)",
    )
    predict.add_argument(
        "--features",
        metavar="URL",
        help="a feature server, for what the release says is in its views (default: $FEATURES_URL; without one, the "
        "release's tables and defaults)",
    )
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    form.add_argument(
        "--csv", action="store_true", help="the entities, the outputs, defaults, error, version on stdout"
    )
    _timeout(predict)
    _connection(predict)


def _embed(embed: argparse.ArgumentParser) -> None:
    embed.add_argument("texts", nargs="*", metavar="TEXT", help="what to embed; with --among, what to look for")
    embed.add_argument(
        "--file", type=Path, metavar="FILE", help="texts from a file as well, one a line; - for standard input"
    )
    embed.add_argument(
        "--model",
        help="one with the input `text`, BYTES [B, 1], and the output `embedding` (default: the only such that serves)",
    )
    form = embed.add_mutually_exclusive_group()
    form.add_argument(
        "--among", type=Path, metavar="FILE", help="print the lines of this file that are nearest to each text"
    )
    form.add_argument("--save", type=Path, metavar="FILE.npy", help="save the vectors, [N, k], and print none")
    embed.add_argument("--top", type=positive_count, default=3, metavar="N", help="with --among, how many (default: 3)")
    embed.add_argument("--json", action="store_true", help="one JSON object per text on stdout")
    _timeout(embed, default=60)
    _connection(embed)


def _models(models: argparse.ArgumentParser) -> None:
    models.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    _timeout(models)
    _connection(models)


def _health(health: argparse.ArgumentParser) -> None:
    health.add_argument("--model", default="", help="also check whether this model is ready")
    health.add_argument(
        "--wait", type=_seconds, default=0, metavar="SECONDS", help="wait until ready, at most so long (default: 0)"
    )
    health.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    _connection(health)
    health.set_defaults(timeout=10)  # its questions have a second each


def _timeout(command: argparse.ArgumentParser, default: int = 10) -> None:
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=default,
        metavar="SECONDS",
        help="deadline of a request, its retries included (default: %(default)s)",
    )


def _connection(command: argparse.ArgumentParser) -> None:
    connection = command.add_argument_group("the server")
    connection.add_argument(
        "--server",
        action="append",
        metavar="URL",
        help="grpc://HOST:PORT, grpcs://, http:// or https:// (default: over gRPC the one that `deploy up` started "
        "here, else grpc://127.0.0.1:8001); repeatable: several share the load",
    )
    connection.add_argument(
        "--http", action="store_true", help="the default server over HTTP; if none was started, http://127.0.0.1:8000"
    )
    connection.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="CA bundle for the server's certificate, PEM (default: over HTTP the system's, over gRPC its own)",
    )
    connection.add_argument("--cert", type=Path, metavar="FILE", help="client certificate, for mutual TLS, PEM")
    connection.add_argument("--key", type=Path, metavar="FILE", help="private key of --cert, PEM")
    connection.add_argument(
        "--headers",
        type=Path,
        metavar="FILE",
        help="headers to send, one `name: value` per line; a file, as arguments are visible to all users",
    )


def _seconds(text: str) -> float:
    """Read an argument that is a time of at most a day, 0 included."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 0 to 86400 seconds, got {text!r}")
    return seconds


COMMANDS = (
    Command("classify", "label and score of each image", "clients.command_line.commands:classify", _classify),
    Command("infer", "any model, with any inputs; outputs as JSON", "clients.command_line.commands:infer", _infer),
    Command("embed", "texts as vectors, and a small search among them", "clients.command_line.embedding:embed", _embed),
    Command(
        "predict",
        "any model that declares entities, from those alone",
        "clients.command_line.predicting:predict",
        _predict,
    ),
    Command(
        "models",
        "models that are served: versions, requests, inputs and outputs",
        "clients.command_line.commands:models",
        _models,
    ),
    Command("health", "whether each server is live and ready", "clients.command_line.commands:health", _health),
)
