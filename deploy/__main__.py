"""Run a real Triton Inference Server over the model repository.

  python -m deploy up               in the foreground; Ctrl-C stops it
  python -m deploy up --detach      in the background, until `down`
  python -m deploy status           what is loaded and ready (--json for machines)
  python -m deploy logs --follow
  python -m deploy down
  python -m deploy up --require-signature --verify-key verify.pem

Where a container's or an installed tritonserver exists it is used, with its native backends; anywhere else
the tritonserver of a pip wheel is, in an environment (.venv-server) made on first use. It listens on the
loopback interface unless --host says otherwise.
"""

import argparse
import collections
import json
import sys
import time
from pathlib import Path

from contracts import layout, signature
from contracts.errors import SignatureError, run_command_line


def main() -> int:
    options = _parser().parse_args()
    return {"up": _up, "status": _status, "logs": _logs, "down": _down}[options.command](options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser(
        "up",
        help="start the server and wait for its models",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    up.add_argument("--detach", action="store_true", help="return once every model is ready")
    up.add_argument("--repository", type=Path, default=layout.MODEL_REPOSITORY, help="the model repository")
    up.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu"],
        default="auto",
        help="cpu serves configs/cpu.pbtxt (ONNX Runtime), gpu config.pbtxt (TensorRT)",
    )
    up.add_argument("--host", default="127.0.0.1", help="address to listen on")
    up.add_argument("--http-port", type=_port, default=8000, help=" ")
    up.add_argument("--grpc-port", type=_port, default=8001, help=" ")
    up.add_argument("--metrics-port", type=_port, default=8002, help=" ")
    up.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="for the models to load")
    up.add_argument(
        "--require-signature",
        action="store_true",
        help="refuse a version that is unsigned or not what was signed; exempt are those without a manifest, a graph "
        "or an engine: the Python models and the ensembles that git has",
    )
    trusted = up.add_mutually_exclusive_group()
    trusted.add_argument(
        "--verify-key",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,  # the environment's, and only where it is needed
        help="the public key of whoever may sign (default: $VERIFY_KEY)",
    )
    trusted.add_argument(
        "--verify-chain",
        type=Path,
        nargs="+",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the root certificate, and those between, of whoever may sign (default: $VERIFY_CHAIN)",
    )
    status = commands.add_parser("status", help="what is loaded and ready; exit code 0 only if all of it is")
    status.add_argument("--json", action="store_true", help="one JSON object on stdout")
    logs = commands.add_parser("logs", help="the server's log, also of a server that has ended")
    logs.add_argument("--follow", "-f", action="store_true", help="go on as it grows, until the server ends")
    logs.add_argument("--lines", "-n", type=_count, default=50, help="how many of the last lines (default: 50)")
    commands.add_parser("down", help="stop the server; requests already accepted finish first")
    return parser


def _up(options: argparse.Namespace) -> int:
    from deploy import server

    settings = server.Settings(
        repository=options.repository.resolve(),
        device=options.device,
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        trust=_trust(options),
    )
    started = time.monotonic()
    up = server.start(settings, say=print)
    keep = False
    try:
        print(f"Starting tritonserver (process {up.pid}) …", flush=True)
        found = server.wait_until_ready(up, options.timeout)
        print(_models_table(found))
        print(f"Ready after {time.monotonic() - started:.1f} s: http {up.http}, grpc {up.grpc}, metrics {up.metrics}")
        if options.detach:
            keep = True
            print("Next: python -m clients classify IMAGE…   (stop: python -m deploy down)")
            return 0
        print("Next, in another terminal: python -m clients classify IMAGE…   (stop: Ctrl-C)", flush=True)
        while up.process() is not None:
            time.sleep(0.5)
        print(f"error: tritonserver has ended; its log: {layout.shown(Path(up.log))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
        return 130
    finally:
        if not keep:
            server.stop(up)


def _trust(options: argparse.Namespace) -> signature.Trust | None:
    key, chain = getattr(options, "verify_key", None), tuple(getattr(options, "verify_chain", ()))
    if not options.require_signature:
        if key or chain:
            raise SignatureError("--verify-key and --verify-chain do nothing without --require-signature")
        return None
    trust = signature.Trust(key, chain) if key or chain else signature.trust_from_environment()
    if trust is None:
        raise SignatureError(
            "--require-signature needs to know whose signature",
            hint="add --verify-key FILE or --verify-chain FILE…, or set VERIFY_KEY or VERIFY_CHAIN",
        )
    return trust


def _status(options: argparse.Namespace) -> int:
    from deploy import server

    up = server.running()
    if up is None:
        print(json.dumps({"running": False, "ready": False}) if options.json else "No server is up.")
        return 1
    found = server.models(up)
    summary = server.as_json(up, found)
    if options.json:
        print(json.dumps(summary))
    else:
        print(f"process {up.pid}, http {up.http}, grpc {up.grpc}, metrics {up.metrics}")
        print(_models_table(found) if found else "It does not answer yet.")
    return 0 if summary["ready"] else 1


def _logs(options: argparse.Namespace) -> int:
    from deploy import server

    path = server.DIRECTORY / "triton.log"
    if not path.is_file():
        print("There is no log yet: no server was started.")
        return 1
    with path.open(errors="replace") as log:
        print("".join(collections.deque(log, maxlen=options.lines)), end="", flush=True)
        while options.follow and server.running() is not None:
            print(log.read(), end="", flush=True)
            time.sleep(0.2)
        print(log.read(), end="", flush=True)  # its last words
    return 0


def _down(options: argparse.Namespace) -> int:
    from deploy import server

    up = server.running()
    if up is None:
        print("No server is up.")
        return 0
    server.stop(up)
    print(f"Stopped the server (process {up.pid}).")
    return 0


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text} is not a port, 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a number of lines")
    return int(text)


def _models_table(found: list) -> str:  # type: ignore[type-arg]  # of server.Model, imported late
    width = max(len(model.name) for model in found)
    rows = [f"  {m.name:<{width}}  {m.version:>3}  {m.state:<11}  {m.reason}".rstrip() for m in found]
    return "\n".join(rows)


if __name__ == "__main__":
    run_command_line(main)
