"""What `python -m deploy up` does; it returns the exit code."""

import argparse
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from contracts import layout, signing
from contracts.entities import releases
from contracts.errors import ManifestError, SignatureError
from contracts.files import whole
from deploy.errors import SettingsError
from deploy.keeping import standing
from deploy.keeping.supervisor import Patience, Supervisor
from deploy.neighbours import hosts, own
from deploy.running import logs, trace_relay
from deploy.running.commands import addresses, models_table
from deploy.running.server import Server
from deploy.running.status import EXIT_LEFT_OUT
from deploy.served import inside, unsealed
from deploy.triton import released, state
from deploy.triton.control import Control, ModelVersion
from deploy.triton.released import LeftOut
from deploy.triton.settings import Settings, Tls, Traces


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
        say("\n".join([models_table(found, up.left_out), *unsealed.told(Path(up.state.served))]))
        say(_ready(up.state, up.left_out, time.monotonic() - started))
        say(f"{_next(found, up.state, 'Next, in another terminal')}   (stop: Ctrl-C)")

    warn = functools.partial(logs.write, state.log_file(), "warning")
    try:
        with trace_relay.relaying(settings.traces, warn) as traces:
            settings = replace(settings, traces=traces)
            Supervisor(settings, Patience(options.load_timeout, options.longest_pause), say).run(ready)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
    return 130


def _up_detached(arguments: Sequence[str]) -> int:
    """Start `up` as a process of its own; return once every model is ready, with 3 if some are left out."""
    started = time.monotonic()
    up_log = own.made(state.directory()) / "up.log"
    up_log.unlink(missing_ok=True)
    with os.fdopen(whole.create(up_log, 0o644), "w") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "deploy", *(a for a in arguments if a != "--detach")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        print("Starting tritonserver …", flush=True)
        with up_log.open() as said:
            running = wait_until_ready(supervisor, said)
        if running is None:
            whole_log = up_log.read_text()
            print(whole_log[max(0, whole_log.find("error: ")) :], end="", file=sys.stderr)
            return supervisor.returncode or 1
    except BaseException:  # Ctrl-C before it is up: nothing stays behind
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        raise
    with Control(running) as control:
        left_out = released.left_out(Path(running.repository), running.config_name, running.failed)
        found = released.without(control.models(), left_out)
    print("\n".join([models_table(found, left_out), *unsealed.told(Path(running.served))]))
    print(_ready(running, left_out, time.monotonic() - started))
    print(f"{_next(found, running, 'Next')}   (stop: python -m deploy down)")
    return EXIT_LEFT_OUT if any(group.failed for group in left_out) else 0


def wait_until_ready(supervisor: "subprocess.Popen[bytes]", said: TextIO) -> state.Running | None:
    """Wait until a supervisor serves, and pass on what it says meanwhile; None if it ended."""
    running, setting_up = None, True
    while running is None and supervisor.poll() is None:
        time.sleep(0.05)
        setting_up = _pass_on(said, setting_up=setting_up)
        found = state.recorded()
        if found is not None and found.supervisor.pid == supervisor.pid and found.phase == "ready":
            running = found
    _pass_on(said, setting_up=setting_up)
    return running


def _pass_on(said: TextIO, *, setting_up: bool) -> bool:
    """Pass on what is new: all before Triton is started, as of packages that take minutes, and then what warns.

    Returns:
        Whether Triton is not started yet.
    """
    for line in said:
        setting_up = setting_up and not line.startswith(("Starting tritonserver", "error: ", "Traceback "))
        if setting_up or line.startswith(("warning: ", "Serving ")):
            print(line, end="", flush=True)
    return setting_up


def _ready(running: state.Running, left_out: Sequence[LeftOut], after_s: float) -> str:
    """Say that it is ready or, loudly, that not all is."""
    failed = [group.name for group in left_out if group.failed]
    without = f", WITHOUT {', '.join(failed)}" if failed else ""
    return f"Ready after {after_s:.1f} s{without}: {addresses(running)}"


def _next(versions: Sequence[ModelVersion], running: state.Running, when: str) -> str:
    """Say what comes next: a call, but of a socket whom it is for."""
    if running.http_socket:
        return f"A gateway asks it: GATEWAY_TRITON__ENDPOINTS={running.http}"
    return f"{when}: {_call(versions, running)}"


def _call(versions: Sequence[ModelVersion], running: state.Running) -> str:
    """Name the command that calls what is served: a model that clients call, not a step of an ensemble."""
    served = [v.name for v in versions if v.state == "READY"]
    secured = " --ca FILE" if running.grpc_tls else ""
    if layout.DEFAULT_FAMILY in served:
        return f"python -m clients classify IMAGE…{secured}"
    folders = [path.parent for path in Path(running.served).glob("*/config.pbtxt")]
    steps = {step for folder in folders for step in (*standing.steps(folder), *inside.steps_of(folder))}
    called = [name for name in served if name not in steps] or served
    if not called:
        return "python -m deploy status"
    how = "predict" if _takes_entities(called[0], Path(running.repository)) else "infer"
    return f"python -m clients {how} {called[0]}{secured}"


def _takes_entities(model: str, root: Path) -> bool:
    with suppress(ManifestError):  # of another release, which is told of where it matters
        return releases.find(root, model) is not None
    return False


def _show_log_from_now_on() -> None:
    own.made(state.directory())
    state.log_file().touch(0o644)
    forever = {"follow": True, "as_json": True, "alive": lambda: True}
    threading.Thread(target=logs.show, args=(state.log_file(), 0), kwargs=forever, daemon=True).start()


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        repository=options.repository.resolve(),
        device=options.device,
        ensembles=options.ensembles,
        host=hosts.address_of(options.host),
        http_port=options.http_port,
        http_socket=options.http_socket.absolute() if options.http_socket else None,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        trust=_trust(options),
        admin_key_file=options.admin_key_file.resolve() if "admin_key_file" in options else None,
        tls=_tls(options),
        traces=Traces(options.otlp_endpoint, options.trace_rate) if options.otlp_endpoint else None,
        cache_bytes=options.cache_mb * 1024 * 1024,
        http_max_bytes=options.http_max_mb * 1024 * 1024 if options.http_max_mb else None,
        allow_client_shm=options.allow_client_shm,
        rate_limit=options.rate_limit,
        auto_complete=options.auto_complete_config,
        log_verbose=options.log_verbose,
        user=getattr(options, "user", None),
        variables=tuple(options.model_env),
        drain_s=options.drain,
        memory_bytes=options.memory,
        strict=options.strict,
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
        if key or chain or options.verify_identity or options.accept_expired_after:
            told = "--verify-key, --verify-chain, --verify-identity and --accept-expired-after"
            raise SignatureError(f"{told} do nothing without --require-signature")
        return None
    paths = key and key.resolve(), tuple(path.resolve() for path in chain)
    trust = signing.trust(*paths, options.verify_identity, options.accept_expired_after)
    if trust is None:
        raise SignatureError(
            "--require-signature needs to know whose signature",
            hint="add --verify-key FILE or --verify-chain FILE…, or set VERIFY_KEY or VERIFY_CHAIN",
        )
    return trust
