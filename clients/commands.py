"""What `python -m clients COMMAND` does, for each command; the exit code."""

import argparse
import base64
import csv
import json
import os
import stat
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from clients.client import Client
from clients.errors import ClientError, InvalidInputError, ServerUnavailableError
from clients.settings import DEFAULT_SERVER, Tls, Transport, addresses_of
from clients.tasks import Prediction
from clients.tensors import Signature, Tensor, numpy_type

SUFFIXES = (".png", ".jpg", ".jpeg")
_STDIN = "-"


def classify(options: argparse.Namespace) -> int:
    """Label and score of each image; files are read as they are sent."""
    paths = list(_image_files(options.paths))
    show = _printer(as_json=options.json, as_csv=options.csv)
    failed, unreadable = 0, dict[Path, OSError]()

    def read(path: Path) -> bytes:
        try:
            return sys.stdin.buffer.read() if str(path) == _STDIN else path.read_bytes()
        except OSError as error:  # it costs nobody else's answer
            unreadable[path] = error
            return b""

    with _client(options) as client, _progress(len(paths)) as advance:
        outcomes = client.classify_many(map(read, paths), model=options.model, batch_size=options.batch)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, ServerUnavailableError):
                raise outcome  # nor will it respond to the others
            if path in unreadable:
                outcome = InvalidInputError(f"cannot read it: {unreadable[path].strerror}")
            failed += isinstance(outcome, ClientError)
            show(str(path), outcome)
            advance()
    print(f"{len(paths) - failed:,} classified, {failed:,} failed", file=sys.stderr)
    return 1 if failed else 0


def infer(options: argparse.Namespace) -> int:
    """One request to any model."""
    with _client(options) as client:
        signature = client.signature(options.model, options.version)
        inputs = _inputs(options.input, signature)
        answer = client.infer(options.model, inputs, outputs=options.output, version=options.version)
    if options.save:
        _save(options.save, {name: _as_numpy(name, array) for name, array in answer.items()})
        print(f"Saved {', '.join(f'{name} {list(array.shape)}' for name, array in answer.items())} to {options.save}")
    else:
        print(json.dumps({name: _as_json(array) for name, array in answer.items()}))
    return 0


def models(options: argparse.Namespace) -> int:
    """What is served. Of Triton's statistics, which ask for no key."""
    with _client(options) as client:
        served = [(s["name"], s["version"], s) for s in client.statistics()]
        for name, version, statistics in sorted(served, key=lambda found: found[:2]):
            signature = client.signature(name, version)
            requests = statistics.get("inference_stats", {}).get("success", {}).get("count", 0)
            if options.json:
                print(
                    json.dumps(
                        {
                            "name": name,
                            "version": int(version),
                            "requests": requests,
                            "max_batch_size": signature.max_batch_size,
                            "inputs": [vars(tensor) for tensor in signature.inputs],
                            "outputs": [vars(tensor) for tensor in signature.outputs],
                        }
                    )
                )
            else:
                print(f"{name}  version {version}, {requests:,} requests")
                print(indent("\n".join(str(signature).splitlines()[1:]), "  "))
    return 0


def health(options: argparse.Namespace) -> int:
    """Whether each server is there and ready, and says so in time."""
    until = time.monotonic() + options.wait
    every_ready = True
    addresses_of(_servers(options), _transport(options))  # what is wrong with one is said before any is asked
    for url in _servers(options):
        with _client(options, [url]) as client:
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


def _client(options: argparse.Namespace, servers: Sequence[str] | None = None) -> Client:
    return Client(*(servers or _servers(options)), timeout_s=options.timeout, transport=_transport(options))


def _transport(options: argparse.Namespace) -> Transport:
    headers = _headers(options.headers) if options.headers else {}
    return Transport(tls=Tls(options.ca, options.cert, options.key), headers=headers)


def _servers(options: argparse.Namespace) -> list[str]:
    if options.http and options.server:
        raise InvalidInputError("--http is short for a --server: give one of the two")
    return ["http://127.0.0.1:8000"] if options.http else options.server or [DEFAULT_SERVER]


def _headers(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the headers in {path}: {error}") from error
    headers = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not (colon and name.strip()):
            raise InvalidInputError(f"{path}, line {number}: not a header", hint="as in authorization: Bearer …")
        headers[name.strip().lower()] = value.strip()
    return headers


def _image_files(paths: Sequence[str]) -> Iterator[Path]:
    """Files that were named, whatever their suffix, and the images in folders that were."""
    for path in map(Path, paths):
        try:
            kind = path.stat().st_mode if str(path) != _STDIN else 0
        except OSError as error:
            raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISDIR(kind):
            yield path
            continue
        found = sorted(_images_in(path))
        if not found:
            raise InvalidInputError(f"{path} has no {', '.join(SUFFIXES)} files")
        yield from found


def _images_in(folder: Path) -> Iterator[Path]:
    """Also through symbolic links, each folder once; and folders that cannot be read, for reading them to say why."""
    unreadable, seen = list[Path](), set[tuple[int, int]]()

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for name, folders, files in os.walk(folder, onerror=note, followlinks=True):
        status = Path(name).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort(key=lambda inner: (Path(name, inner).is_symlink(), inner))  # a link has what its target has not
        found = (Path(name, file) for file in files)
        yield from (path for path in found if path.suffix.lower() in SUFFIXES and _may_be_read(path))
    yield from unreadable


def _may_be_read(path: Path) -> bool:
    """Not a pipe, which would be waited for."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # reading it says why not


def _printer(*, as_json: bool, as_csv: bool) -> Callable[[str, Prediction | ClientError], None]:
    """What prints an outcome, in the form that was asked for."""
    if as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["path", "label", "score", "error"])

    def show(path: str, outcome: Prediction | ClientError) -> None:
        if isinstance(outcome, ClientError):
            if as_csv:
                rows.writerow([path, "", "", outcome])
            elif as_json:
                print(json.dumps({"path": path, "error": str(outcome)}))
            else:
                print(f"{path}  error: {outcome}", file=sys.stderr)
        elif as_csv:
            rows.writerow([path, outcome.label, outcome.score, ""])
        elif as_json:
            top = [{"label": label, "score": score} for label, score in outcome.top]
            print(json.dumps({"path": path, "label": outcome.label, "score": outcome.score, "top": top}))
        else:
            others = ", ".join(f"{label} {score:.3f}" for label, score in outcome.top[1:])
            print(f"{path}  {outcome.label} {outcome.score:.3f}  ({others})")

    return show


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr while results go into a file; on a screen they show the progress themselves."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal or sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _inputs(named: Sequence[str], signature: Signature) -> dict[str, Any]:
    """Arrays of the model's types, from what was written."""
    tensors = {tensor.name: tensor for tensor in signature.inputs}
    if not named:
        if sys.stdin.isatty():
            print("Reading a JSON object of all inputs from standard input, up to Ctrl-D", file=sys.stderr)
        try:
            values = dict(json.load(sys.stdin))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInputError(
                f"standard input is not a JSON object: {error}", hint='as in {"pixels": [[0, 1]]}, or use --input'
            ) from error
        return {name: _array(value, tensors.get(name)) for name, value in values.items()}
    inputs = {}
    for text in named:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"--input {text} is not NAME=VALUE")
        tensor = tensors.get(name)
        if value.startswith("@"):
            inputs[name] = _from_file(Path(value[1:]), tensor)
            continue
        try:
            inputs[name] = _array(json.loads(value), tensor)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"--input {name}: {error}", hint="JSON, or @FILE") from error
    return inputs


def _from_file(path: Path, tensor: Tensor | None) -> Any:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        content = path.read_bytes()
    except Exception as error:  # of numpy, which trusts what it reads
        raise InvalidInputError(f"cannot read {path}: {error}") from error
    return np.array([content], dtype=np.object_).reshape([1] * (len(tensor.shape) if tensor else 1))


def _array(value: Any, tensor: Tensor | None) -> Any:
    """Of the model's dtype: JSON has one kind of number."""
    if tensor is None or tensor.datatype == "BYTES":
        return np.asarray(value, dtype=np.object_)
    try:
        given = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{tensor.name}: {error}", hint="JSON, with rows of the same length") from error
    if given.dtype.kind in "biuf":
        with suppress(OverflowError), np.errstate(over="ignore"):
            array = given.astype(numpy_type(tensor.datatype), casting="unsafe")
            if array.dtype.kind in "biu":
                same = np.array_equal(array, given)
            else:  # rounded, but not to infinity
                same = np.array_equal(np.isfinite(array), np.isfinite(given))
            if same:
                return array
    raise InvalidInputError(f"{tensor.name}: not every value is a {tensor.datatype}")


def _save(path: Path, arrays: dict[str, Any]) -> None:
    try:
        with zipfile.ZipFile(path, "w") as archive:  # np.savez has names of its own, which an output may have, too
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error


def _as_numpy(name: str, array: Any) -> Any:
    """Strings in numpy's own dtype, as arrays of objects would be pickled; BF16, which it does not know, as FP32."""
    if array.dtype.kind == "V":
        return array.astype(np.float32)
    if array.dtype != np.object_:
        return array
    if any(item.endswith(b"\0") for item in array.ravel()):
        raise InvalidInputError(f"{name} ends with zero bytes, which numpy would drop", hint="leave --save away")
    return array.astype(np.bytes_)


def _as_json(array: Any) -> Any:
    """Bytes that are not text are {"b64": …}."""
    if array.dtype != np.object_:
        return array.tolist()
    flat = np.empty(array.size, np.object_)
    for i, item in enumerate(array.ravel()):
        try:
            flat[i] = item.decode()
        except UnicodeDecodeError:
            flat[i] = {"b64": base64.b64encode(item).decode()}
    return flat.reshape(array.shape).tolist()
