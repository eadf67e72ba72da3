"""Classify images with a running server.

  python -m clients classify shoe.png shirts/         files, and folders of .png, .jpg and .jpeg
  python -m clients classify --http shoe.png          over HTTP instead of gRPC
  python -m clients classify --json shirts/ > answers.jsonl     one JSON object a line

The exit code is 0 only if every image got an answer.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import run_command_line

SUFFIXES = (".png", ".jpg", ".jpeg")


def main() -> int:
    options = _parser().parse_args()
    paths = list(_image_files(options.paths))

    from clients import Classifier, ClientError, ServerUnavailableError

    failed = 0
    with Classifier(
        options.address,
        protocol="http" if options.http else "grpc",
        model=options.model,
        timeout_s=options.timeout,
    ) as classifier:
        outcomes = classifier.classify_many(path.read_bytes() for path in paths)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, ServerUnavailableError):
                raise outcome  # it will not answer the others either
            if isinstance(outcome, ClientError):
                failed += 1
                _print_failure(path, outcome, as_json=options.json)
            elif options.json:
                top = [{"label": label, "score": score} for label, score in outcome.top]
                print(json.dumps({"path": str(path), "label": outcome.label, "score": outcome.score, "top": top}))
            else:
                others = ", ".join(f"{label} {score:.3f}" for label, score in outcome.top[1:])
                print(f"{path}  {outcome.label} {outcome.score:.3f}  ({others})")
    print(f"{len(paths) - failed} classified, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clients", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    classify = commands.add_parser("classify", help="label and score of each image")
    classify.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image files, or folders of them")
    classify.add_argument("--http", action="store_true", help="HTTP instead of gRPC")
    classify.add_argument(
        "--address", type=_address, metavar="HOST:PORT", help="default: 127.0.0.1:8001, with --http 8000"
    )
    classify.add_argument("--model", default="fashion", help="the ensemble (default: fashion)")
    classify.add_argument("--timeout", type=float, default=10, metavar="SECONDS", help="for one image (default: 10)")
    classify.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    return parser


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in 127.0.0.1:8001")
    return text


def _image_files(paths: list[Path]) -> Iterator[Path]:
    """The files to send: those named, whatever their suffix, and the images in the folders named."""
    from clients.errors import InvalidInputError

    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise InvalidInputError(f"{path} holds no {', '.join(SUFFIXES)} file")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise InvalidInputError(f"{path} does not exist")


def _print_failure(path: Path, error: Exception, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), "error": str(error)}))
    else:
        print(f"{path}  error: {error}", file=sys.stderr)


if __name__ == "__main__":
    run_command_line(main)
