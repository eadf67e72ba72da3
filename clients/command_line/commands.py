"""What `python -m clients COMMAND` does, for each command; the exit code."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Any

from cli.terminal import Rows
from clients.client import Client
from clients.command_line import files
from clients.core.answer import Answer
from clients.core.tasks import Prediction
from clients.errors import ClientError, InvalidInputError, ServerUnavailableError
from clients.settings import DEFAULT_HTTP_SERVER, DEFAULT_SERVER, Tls, TransportOptions, addresses_of
from contracts.running import record


def classify(options: argparse.Namespace) -> int:
    """Label and score of each image; files are read as they are sent."""
    paths = list(files.image_files(options.paths))
    show = _printer(as_json=options.json, as_csv=options.csv)
    failed, unreadable, answered = 0, dict[Path, OSError](), set[str]()

    def read(path: Path) -> bytes:
        try:
            return sys.stdin.buffer.read() if str(path) == files.STDIN else path.read_bytes()
        except OSError as error:  # it costs nobody else's answer
            unreadable[path] = error
            return b""

    with connected(options) as client, progress("classify", len(paths), "images") as advance:
        outcomes = client.classify_many(map(read, paths), model=options.model, batch_size=options.batch)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, ServerUnavailableError):
                raise outcome  # nor will it respond to the others
            if path in unreadable:
                outcome = InvalidInputError(f"cannot read it: {unreadable[path].strerror}")
            if isinstance(outcome, ClientError):
                failed += 1
            else:
                answered.add(_by(outcome))
            show(str(path), outcome)
            advance()
    by = f"; answered by {', '.join(sorted(answered))}" if answered else ""
    print(f"{len(paths) - failed:,} classified, {failed:,} failed{by}", file=sys.stderr)
    return 1 if failed else 0


def infer(options: argparse.Namespace) -> int:
    """One request to any model."""
    with connected(options) as client:
        metadata = client.metadata(options.model, options.version)
        inputs = files.read_inputs(options.input, metadata)
        answer = client.infer(options.model, inputs, outputs=options.output, version=options.version)
    if options.save:
        files.save(options.save, answer)
        print(f"Saved {', '.join(f'{name} {list(array.shape)}' for name, array in answer.items())} to {options.save}")
    else:
        outputs = {name: files.as_json(array) for name, array in answer.items()}
        print(json.dumps(_who(answer) | {"outputs": outputs} if options.json else outputs))
    if not options.json:
        print(f"answered by {_by(answer)}", file=sys.stderr)
    return 0


def models(options: argparse.Namespace) -> int:
    """Show what is served, as told by Triton's statistics, which ask for no key."""
    with connected(options) as client:
        served = [(s["name"], s["version"], s) for s in client.statistics()]
        for name, version, statistics in sorted(served, key=lambda found: found[:2]):
            metadata = client.metadata(name, version)
            requests = statistics.get("inference_stats", {}).get("success", {}).get("count", 0)
            if options.json:
                print(
                    json.dumps(
                        {
                            "name": name,
                            "version": int(version),
                            "requests": requests,
                            "max_batch_size": metadata.max_batch_size,
                            "inputs": [vars(tensor) for tensor in metadata.inputs],
                            "outputs": [vars(tensor) for tensor in metadata.outputs],
                        }
                    )
                )
            else:
                print(f"{name}  version {version}, {requests:,} requests")
                print(indent("\n".join(str(metadata).splitlines()[1:]), "  "))
    return 0


def health(options: argparse.Namespace) -> int:
    """Whether each server is there and ready, and says so in time."""
    until = time.monotonic() + options.wait
    every_ready = True
    addresses_of(_servers(options), _transport(options))  # what is wrong with one is said before any is asked
    for url in _servers(options):
        with connected(options, [url]) as client:
            while True:
                live, ready, reason = client.live(), False, f"live, and {options.model or 'it'} is not ready"
                try:
                    ready = live and client.ready(options.model)
                except ClientError as error:
                    reason = str(error).partition("\n")[0]
                if ready or time.monotonic() >= until:
                    break
                time.sleep(0.2)
        every_ready &= ready
        if options.json:
            print(json.dumps({"server": url, "live": live, "ready": ready, "model": options.model or None}))
        else:
            of = f", and so is {options.model}" if options.model and ready else ""
            word = f"ready{of}" if ready else reason if live else "does not respond"
            print(f"{'✓' if ready else '✗'} {url}  {word}")
    if not (every_ready or options.json):
        print("Hint: see the server's log; of one that `deploy up` started: python -m deploy logs", file=sys.stderr)
    return 0 if every_ready else 1


def connected(options: argparse.Namespace, servers: Sequence[str] | None = None) -> Client:
    """Make a client of the servers that a command names, by default of the one that is up."""
    return Client(*(servers or _servers(options)), timeout_s=options.timeout, transport=_transport(options))


def _transport(options: argparse.Namespace) -> TransportOptions:
    headers = files.read_headers(options.headers) if options.headers else {}
    return TransportOptions(tls=Tls(options.ca, options.cert, options.key), headers=headers)


def _servers(options: argparse.Namespace) -> list[str]:
    if options.http and options.server:
        raise InvalidInputError(
            "--http is about the server that `deploy up` started, and --server names another: give one of the two"
        )
    if options.server:
        return list(options.server)
    if (up := record.running()) is not None:
        return [up.http_url if options.http else up.grpc_url]
    return [DEFAULT_HTTP_SERVER if options.http else DEFAULT_SERVER]


def _who(answer: Answer | Prediction) -> dict[str, Any]:
    return {"model": answer.model, "version": answer.version}


def _by(answer: Answer | Prediction) -> str:
    """Say which version of which model answered, as far as the server says that."""
    return answer.model if answer.version is None else f"{answer.model} version {answer.version}"


def _printer(*, as_json: bool, as_csv: bool) -> Callable[[str, Prediction | ClientError], None]:
    """Return what prints an outcome, in the form that was asked for."""
    if as_csv:
        rows = Rows(sys.stdout, lineterminator="\n")
        rows.write(["path", "label", "score", "error", "version"])

    def show(path: str, outcome: Prediction | ClientError) -> None:
        if isinstance(outcome, ClientError):
            if as_csv:
                rows.write([path, "", "", str(outcome), ""])
            elif as_json:
                print(json.dumps({"path": path, "error": str(outcome)}))
            else:
                print(f"{path}  error: {outcome}", file=sys.stderr)
        elif as_csv:
            rows.write([path, outcome.label, outcome.score, "", outcome.version])
        elif as_json:
            top = [{"label": label, "score": score} for label, score in outcome.top]
            found = {"path": path, "label": outcome.label, "score": outcome.score, "top": top}
            print(json.dumps(found | _who(outcome)))
        else:
            others = ", ".join(f"{label} {score:.3f}" for label, score in outcome.top[1:])
            print(f"{path}  {outcome.label} {outcome.score:.3f}  ({others})")

    return show


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr while results go into a file; on a screen they show the progress themselves."""
    if find_spec("rich") is None:  # the installed library can do without it
        yield lambda *_: None
        return
    from cli.progress import bar

    with bar(what, total, unit, hidden=sys.stdout.isatty()) as shown:
        yield shown.advance
