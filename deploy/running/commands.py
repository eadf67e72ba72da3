"""What `python -m deploy up`, `status`, `logs` and `down` do; each returns the exit code."""

import argparse
import functools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from contracts import layout, signing
from contracts.errors import SignatureError
from deploy.errors import SettingsError
from deploy.running import dashboard, logs, server, status, trace_relay
from deploy.running.server import Server
from deploy.running.supervisor import Supervisor
from deploy.triton import released, state
from deploy.triton.control import Control, ModelVersion
from deploy.triton.released import LeftOut
from deploy.triton.settings import Settings, Tls, Traces

NOT_UP = "No server is up."


def up(options: argparse.Namespace) -> int:
    """Keep a server up until told to stop, in the foreground or in a process of its own."""
    if options.detach:
        return _up_detached(options.arguments)
    settings = _settings(options)
    started = time.monotonic()
    say = functools.partial(print, flush=True, file=sys.stderr if options.log_to_stdout else sys.stdout)
    if options.log_to_stdout:
        _show_log_from_now_on()

    def ready(up: Server, found: list[ModelVersion]) -> None:
        say(models_table(found, up.left_out))
        say(f"Ready after {time.monotonic() - started:.1f} s: {addresses(up.state)}")
        say(f"Next, in another terminal: {_call(found)}   (stop: Ctrl-C)")

    warn = functools.partial(logs.write, state.log_file(), "warning")
    try:
        with trace_relay.relaying(settings.traces, warn) as traces:
            settings = replace(settings, traces=traces)
            Supervisor(settings, options.timeout, options.max_restarts, say).run(ready)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
    return 130


def _up_detached(arguments: Sequence[str]) -> int:
    """Start `up` as a process of its own, and return once every model is ready."""
    started = time.monotonic()
    state.directory().mkdir(parents=True, exist_ok=True)
    up_log = state.directory() / "up.log"
    with up_log.open("w") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "deploy", *(a for a in arguments if a != "--detach")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        print("Starting tritonserver …", flush=True)
        while supervisor.poll() is None:
            running = state.recorded()
            if running is not None and running.supervisor.pid == supervisor.pid and running.phase == "ready":
                break
            time.sleep(0.05)
        else:
            said = up_log.read_text()
            print(said[said.find("error: ") :] if "error: " in said else said, end="", file=sys.stderr)
            return supervisor.returncode or 1
    except BaseException:  # Ctrl-C before it is up: nothing stays behind
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        raise
    for line in up_log.read_text().splitlines():
        if line.startswith("warning: "):
            print(line)
    with Control(running) as control:
        left_out = released.left_out(Path(running.repository), running.config_name)
        found = released.without(control.models(), left_out)
    print(models_table(found, left_out))
    print(f"Ready after {time.monotonic() - started:.1f} s: {addresses(running)}")
    print(f"Next: {_call(found)}   (stop: python -m deploy down)")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the server and the supervisor that keeps it up."""
    running = state.running()
    if running is None:
        print(NOT_UP)
        return 0
    server.take_down(running)
    print(f"Stopped the server (process {running.triton.pid}).")
    return 0


def show_status(options: argparse.Namespace) -> int:
    """Show what is loaded and how it does; return 0 only if all of it is ready."""
    if options.watch:
        return 0 if dashboard.watch(in_json=options.json) else 1
    running = state.running()
    if running is None:
        print(json.dumps({"running": False, "ready": False}) if options.json else NOT_UP)
        return 1
    found = status.look(running)
    if options.json:
        print(json.dumps(status.as_json(found)))
    else:
        dashboard.show(found)
    return 0 if found.ready else 1


def show_logs(options: argparse.Namespace) -> int:
    """Show the server's log, also of one that has ended."""
    if not state.log_file().is_file():
        print("There is no log yet: no server was started.")
        return 1
    logs.show(
        state.log_file(),
        options.lines,
        follow=options.follow,
        as_json=options.json,
        alive=lambda: state.running() is not None,
    )
    return 0


def models_table(versions: list[ModelVersion], left_out: Sequence[LeftOut] = ()) -> str:
    """List as text, a line each, the versions (name, version, state, and why it is not ready) and what is left out."""
    width = max((len(v.name) for v in versions), default=0)
    lines = [f"  {v.name:<{width}}  {v.version:>3}  {v.state:<11}  {v.reason}".rstrip() for v in versions]
    return "\n".join([*lines, *map(str, left_out)])


def addresses(running: state.Running) -> str:
    """List the addresses that a server listens on, in one line."""
    return f"http {running.http}, grpc {running.grpc}, metrics {running.metrics}"


def _call(versions: Sequence[ModelVersion]) -> str:
    """Name the command that calls what is served."""
    served = [v.name for v in versions if v.state == "READY"]
    if layout.DEFAULT_FAMILY in served:
        return "python -m clients classify IMAGE…"
    return f"python -m clients infer {served[0] if len(served) == 1 else 'MODEL'}"


def _show_log_from_now_on() -> None:
    state.directory().mkdir(parents=True, exist_ok=True)
    state.log_file().touch()
    forever = {"follow": True, "as_json": True, "alive": lambda: True}
    threading.Thread(target=logs.show, args=(state.log_file(), 0), kwargs=forever, daemon=True).start()


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        repository=options.repository.resolve(),
        device=options.device,
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        trust=_trust(options),
        admin_key_file=options.admin_key_file.resolve() if "admin_key_file" in options else None,
        tls=_tls(options),
        traces=Traces(options.otlp_endpoint, options.trace_rate) if options.otlp_endpoint else None,
        cache_bytes=options.cache_mb * 1024 * 1024,
        rate_limit=options.rate_limit,
        user=getattr(options, "user", None),
        drain_s=options.drain,
    )


def _tls(options: argparse.Namespace) -> Tls | None:
    certificate, key, client_ca = options.grpc_tls_cert, options.grpc_tls_key, options.grpc_client_ca
    if certificate and key:
        return Tls(certificate.resolve(), key.resolve(), client_ca and client_ca.resolve())
    if certificate or key or client_ca:
        raise SettingsError("TLS takes both --grpc-tls-cert and --grpc-tls-key")
    return None


def _trust(options: argparse.Namespace) -> signing.Trust | None:
    key, chain = getattr(options, "verify_key", None), tuple(getattr(options, "verify_chain", ()))
    if not options.require_signature:
        if key or chain:
            raise SignatureError("--verify-key and --verify-chain do nothing without --require-signature")
        return None
    if key or chain:
        return signing.Trust(key and key.resolve(), tuple(path.resolve() for path in chain))
    trust = signing.trust_from_environment()
    if trust is None:
        raise SignatureError(
            "--require-signature needs to know whose signature",
            hint="add --verify-key FILE or --verify-chain FILE…, or set VERIFY_KEY or VERIFY_CHAIN",
        )
    return trust
