"""Run a real Triton Inference Server over the model repository, and keep it up.

  python -m deploy up               in the foreground; Ctrl-C stops it
  python -m deploy up --detach      in the background, until `down`
  python -m deploy status           what is loaded, how it does (--watch; --json for machines)
  python -m deploy logs --follow
  python -m deploy down

  python -m deploy reload           serve what was published since, without dropping a request
  python -m deploy rollback MODEL
  python -m deploy promote MODEL 3
  python -m deploy arm MODEL 3      serve a release beside the one that serves, as MODEL.r3
  python -m deploy prove DIRECTORY  let a server of its own load a version, and check its answers
  python -m deploy environments     packages that Python models have of their own (lock, build)
  python -m deploy drill            try all of that, bad models and crashes, under load, on a copy

Where a container's or an installed tritonserver exists it is used, with its native backends; anywhere else the
tritonserver of a pip wheel is, in an environment (.venv-server) made on first use. It listens on the loopback
interface unless --host says otherwise, its admin APIs ask for a key, and a crashed server or worker is replaced.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cli import commands
from cli.commands import Command, count, day, port, positive, size
from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name; return its exit code."""
    return commands.run("python -m deploy", __doc__, COMMANDS, arguments)


def _up(up: argparse.ArgumentParser) -> None:
    up.add_argument(
        "--detach",
        action="store_true",
        help="return once what loads is ready: exit code 0 if that is all, 3 if a model failed and is left out",
    )
    up.add_argument("--repository", type=Path, default=layout.model_repository(), help="the model repository")
    up.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu"],
        default="auto",
        help="cpu serves configs/cpu.pbtxt (ONNX Runtime), gpu config.pbtxt (TensorRT)",
    )
    up.add_argument(
        "--ensembles",
        action="store_true",
        help="on a CPU, too, serve each step of an ensemble as a model of its own; else one process runs them all, "
        "where configs/cpu.pbtxt says so",
    )
    up.add_argument(
        "--load-timeout", type=positive, default=120, metavar="SECONDS", help="for each model; a slower one is left out"
    )
    up.add_argument("--strict", action="store_true", help="serve all of the repository or nothing; leave no model out")

    network = up.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on")
    network.add_argument("--http-port", type=port, default=8000, help=" ")
    network.add_argument(
        "--http-socket",
        type=Path,
        metavar="PATH",
        help="serve HTTP on a Unix socket, and on no port, as to a gateway; "
        "gRPC then asks for the admin key, whatever is asked",
    )
    network.add_argument("--grpc-port", type=port, default=8001, help=" ")
    network.add_argument("--metrics-port", type=port, default=8002, help=" ")
    network.add_argument(
        "--http-max-mb",
        type=count,
        default=0,
        metavar="MB",
        help="largest HTTP request, where Triton limits it; 0 is its own limit, 64 since 25.06",
    )

    security = up.add_argument_group("security", "HTTP has no TLS of its own: see docs/how-to/secure.md")
    security.add_argument(
        "--allow-client-shm",
        action="store_true",
        help="let clients on this machine have the server map their memory: Triton 26.04 and later refuse it "
        "otherwise, older ones never do",
    )
    security.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="holds what the admin APIs ask for (default: $ADMIN_KEY, else a key made in artifacts/server/admin.key)",
    )
    security.add_argument("--grpc-tls-cert", type=Path, metavar="FILE", help="serve gRPC over TLS: certificate, PEM")
    security.add_argument("--grpc-tls-key", type=Path, metavar="FILE", help="and its private key")
    security.add_argument("--grpc-client-ca", type=Path, metavar="FILE", help="mutual TLS: who signs the clients'")
    security.add_argument(
        "--user",
        default=argparse.SUPPRESS,
        metavar="USER",
        help="as root: whom the server runs as, NAME, UID or UID:GID (default: $SERVER_USER, else 65524, which is "
        "nobody's); root where it has to",
    )
    security.add_argument(
        "--model-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable of the environment that models get, too; repeatable (also: those that $MODEL_ENV names, A,B)",
    )
    security.add_argument(
        "--require-signature",
        action="store_true",
        help="serve only releases that are sealed and signed, as they were signed, under the name and number that they "
        "were published with; models that no export sealed are left out",
    )
    trusted = security.add_mutually_exclusive_group()
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
    security.add_argument(
        "--verify-identity",
        metavar="SAN",
        help="the e-mail address, URI or host name in the signer's certificate; a chain needs it "
        "(default: $VERIFY_IDENTITY)",
    )
    security.add_argument(
        "--accept-expired-after",
        type=day,
        metavar="DATE",
        help="of an archive: take what says that it was made on this day or later, although its signer's certificate "
        "has expired since",
    )

    running = up.add_argument_group("keeping it up")
    running.add_argument("--drain", type=count, default=30, metavar="SECONDS", help="for accepted requests, at the end")
    running.add_argument(
        "--longest-pause",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="before what crashes again and again is started anew; it never gives up",
    )
    running.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="limit of the server and its workers, as in 512M or 16G: of a cgroup where one can be made, else of each "
        "process; a model that takes more is left out",
    )
    running.add_argument("--cache-mb", type=count, default=0, metavar="MB", help="response cache; 0 is none")
    running.add_argument("--rate-limit", action="store_true", help="heed the configurations' rate_limiter")
    running.add_argument(
        "--auto-complete-config",
        action="store_true",
        help="let Triton add what a config.pbtxt leaves out (inputs, outputs, max_batch_size), as by default in "
        "NVIDIA's container; the file may be empty",
    )

    traces = up.add_argument_group("logs and traces")
    traces.add_argument(
        "--log-to-stdout", action="store_true", help="the server's log also on stdout, one JSON object a line"
    )
    traces.add_argument(
        "--log-verbose", type=count, default=0, metavar="LEVEL", help="Triton's; 1 tells of CUDA graphs and of requests"
    )
    traces.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        default=os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        help="send OpenTelemetry spans there, as in http://localhost:4318/v1/traces",
    )
    traces.add_argument("--trace-rate", type=count, default=100, metavar="N", help="one request in N")


def _status(status: argparse.ArgumentParser) -> None:
    _json(status)
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")


def _logs(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("--follow", "-f", action="store_true", help="go on as it grows, until the server ends")
    logs.add_argument("--lines", "-n", type=count, default=50, help="how many of the last lines (default: 50)")
    logs.add_argument("--json", action="store_true", help="as it is kept: one JSON object a line")


def _reload(reload: argparse.ArgumentParser) -> None:
    reload.add_argument("models", nargs="*", metavar="MODEL", help="which ones (default: all)")
    _json(reload)


def _rollback(rollback: argparse.ArgumentParser) -> None:
    rollback.add_argument("model", metavar="MODEL")
    rollback.add_argument("--to", type=count, metavar="VERSION", help="default: the one before that which answers")
    _repository(rollback)
    _json(rollback)


def _promote(promote: argparse.ArgumentParser) -> None:
    promote.add_argument("model", metavar="MODEL")
    promote.add_argument("version", type=count, nargs="?", metavar="VERSION", help="default: the newest, also parked")
    _repository(promote)
    _json(promote)


def _arm(arm: argparse.ArgumentParser) -> None:
    arm.add_argument("model", metavar="MODEL", nargs="?", help="any of its family (default: list what stands)")
    arm.add_argument("version", type=count, metavar="VERSION", nargs="?", help="the release's number, also parked")
    arm.add_argument("--remove", action="store_true", help="take it away; what it has accepted is answered first")
    arm.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _repository(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--repository", type=Path, help="default: the one that the running server serves, else model_repository"
    )


def _prove(prove: argparse.ArgumentParser) -> None:
    prove.add_argument("directory", type=Path, metavar="DIRECTORY", help="of a version: model_repository/MODEL/VERSION")
    prove.add_argument(
        "--timeout", type=float, default=120, metavar="SECONDS", help="for a model to load, and for an answer"
    )
    _json(prove)


def _environments(environments: argparse.ArgumentParser) -> None:
    environments.add_argument(
        "action",
        nargs="?",
        choices=["list", "lock", "build"],
        default="list",
        help="lock writes requirements.lock beside requirements.txt, build installs what is locked (default: list)",
    )
    environments.add_argument("models", nargs="*", metavar="MODEL", help="whose (default: all that have any)")
    environments.add_argument(
        "--missing", action="store_true", help="lock only those that are not, or have changed since they were"
    )
    environments.add_argument(
        "--repository", type=Path, default=layout.model_repository(), help="default: model_repository"
    )


def _drill(drill: argparse.ArgumentParser) -> None:
    drill.add_argument("--requests", type=count, default=20_000, metavar="N", help="at least (default: 20,000)")
    drill.add_argument("--connections", type=count, default=8, metavar="N", help="HTTP and gRPC in turn (default: 8)")
    drill.add_argument("--model", help="the one to upgrade (default: the first that was released)")
    drill.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="to send in place of golden requests; repeatable",
    )
    drill.add_argument(
        "--repository",
        type=Path,
        default=layout.model_repository(),
        help="what to take the copy of (default: model_repository)",
    )
    drill.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto", help="as of up (default: auto)")
    drill.add_argument("--ensembles", action="store_true", help="as of up")
    drill.add_argument(
        "--only", action="append", default=[], metavar="EVENT", help='one of its events, "server killed"; repeatable'
    )
    _json(drill)


COMMANDS = (
    Command(
        "up",
        "start the server, wait for its models, keep it up",
        "deploy.keeping.commands:up",
        _up,
        argparse.ArgumentDefaultsHelpFormatter,
    ),
    Command(
        "status",
        "what is loaded and how it does; exit code 0 only if all is ready, 3 if it is but for models that are left out",
        "deploy.running.commands:show_status",
        _status,
    ),
    Command("logs", "the server's log, also of a server that has ended", "deploy.running.commands:show_logs", _logs),
    Command("down", "stop the server; requests already accepted finish first", "deploy.running.commands:down", _json),
    Command(
        "reload", "serve what is on disk now; what does not load is parked", "deploy.versions.commands:reload", _reload
    ),
    Command(
        "rollback",
        "serve the version before; newer ones are parked, not deleted",
        "deploy.versions.commands:rollback",
        _rollback,
    ),
    Command(
        "promote",
        "make a version the one that answers; newer ones are parked",
        "deploy.versions.commands:promote",
        _promote,
    ),
    Command(
        "arm",
        "serve another release beside the one that serves, under names of its own; without arguments list those",
        "deploy.versions.commands:arm",
        _arm,
    ),
    Command(
        "prove",
        "the serve gate: let a server of its own load a version, and check its answers alone and in company; "
        "exit code 3 where no server can be started",
        "deploy.proving.commands:prove",
        _prove,
    ),
    Command(
        "environments",
        "packages that models have of their own, from a requirements.txt beside config.pbtxt",
        "deploy.layers.commands:environments",
        _environments,
    ),
    Command(
        "drill",
        "upgrade a server under load, on a copy, put bad models beside the good ones, kill it: what do clients see?",
        "deploy.drill.commands:run_drill",
        _drill,
    ),
)

if __name__ == "__main__":
    run_command_line(main, ProjectError)
