"""Ask a running server.

  python -m clients classify shoe.png shirts/         images, and folders of .png, .jpg and .jpeg
  python -m clients classify --csv shirts/ > answers.csv
  cat shoe.png | python -m clients classify -
  python -m clients infer fashion --input image=@shoe.png
  python -m clients models                            what it serves, and what that takes
  python -m clients health                            whether it is there, and ready

The exit code is 0 if everything was answered (of `health`: if all is ready), 1 if something failed, 2 for a wrong
option, 130 after Ctrl-C.
"""

import argparse
from pathlib import Path

from contracts.errors import run_command_line

_CLASSIFIERS = "a model that takes `image`, BYTES [B, 1], and gives `top_labels` and `top_scores`"


def main() -> int:
    options = _parser().parse_args()

    from clients import commands

    return {
        "classify": commands.classify,
        "infer": commands.infer,
        "models": commands.models,
        "health": commands.health,
    }[options.command](options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clients", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    classify = commands.add_parser("classify", help="label and score of each image")
    classify.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, folders of them, or - for an image on standard input"
    )
    classify.add_argument("--model", default="fashion", help=f"{_CLASSIFIERS} (default: fashion); for any other: infer")
    classify.add_argument("--batch", type=_count, default=16, metavar="N", help="images a request (default: 16)")
    form = classify.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    form.add_argument("--csv", action="store_true", help="path, label, score, error on stdout")

    infer = commands.add_parser("infer", help="any model, with any inputs; the answer as JSON")
    infer.add_argument("model", metavar="MODEL", help="its name; `models` lists them")
    infer.add_argument("--version", default="", metavar="NUMBER", help="of the model (default: the newest)")
    infer.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="JSON, as in pixels=[[0, 1]]; or @FILE: an array if it is .npy, else its bytes, as one row. "
        "Without any: a JSON object of all inputs on standard input",
    )
    infer.add_argument("--output", action="append", default=[], metavar="NAME", help="which to show (default: all)")
    infer.add_argument("--save", type=Path, metavar="FILE.npz", help="the answer as arrays, instead of as JSON")

    models = commands.add_parser("models", help="what is served: versions, requests, inputs and outputs")
    models.add_argument("--json", action="store_true", help="one JSON object a line on stdout")

    health = commands.add_parser("health", help="whether each server is there, and ready")
    health.add_argument("--model", default="", help="ask whether this model is ready, too")
    health.add_argument(
        "--wait", type=_seconds, default=0, metavar="SECONDS", help="ask again for so long (default: 0)"
    )
    health.add_argument("--json", action="store_true", help="one JSON object a line on stdout")

    for command in (classify, infer, models, health):
        _add_connection(command)
    return parser


def _add_connection(command: argparse.ArgumentParser) -> None:
    connection = command.add_argument_group("the server")
    connection.add_argument(
        "--server",
        action="append",
        metavar="URL",
        help="grpc://HOST:PORT, grpcs://, http:// or https:// (default: grpc://127.0.0.1:8001); given several times, "
        "they share the load",
    )
    connection.add_argument("--http", action="store_true", help="short for --server http://127.0.0.1:8000")
    connection.add_argument(
        "--timeout",
        type=_seconds,
        default=10,
        metavar="SECONDS",
        help="at most, for a request with its retries (default: 10)",
    )
    connection.add_argument(
        "--ca", type=Path, metavar="FILE", help="of who signed its certificate (default: the system's)"
    )
    connection.add_argument("--cert", type=Path, metavar="FILE", help="our certificate, for mutual TLS")
    connection.add_argument("--key", type=Path, metavar="FILE", help="and its private key")
    connection.add_argument(
        "--headers",
        type=Path,
        metavar="FILE",
        help="to send along, a `name: value` a line; a file, as everybody sees a process's arguments",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, up to a day")
    return seconds


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


if __name__ == "__main__":
    run_command_line(main)
