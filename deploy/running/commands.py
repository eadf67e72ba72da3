"""What `python -m deploy status`, `logs` and `down` do; each returns the exit code."""

import argparse
import json
from collections.abc import Sequence

from deploy.running import dashboard, logs, server, status
from deploy.triton import state
from deploy.triton.control import ModelVersion
from deploy.triton.released import LeftOut

NOT_UP = "No server is up."


def down(options: argparse.Namespace) -> int:
    """Stop the server and the supervisor that keeps it up."""
    running = state.running()
    if running is not None:
        server.take_down(running)
    if options.json:
        print(json.dumps({"stopped": running is not None, "pid": running.triton.pid if running else None}))
    else:
        print(f"Stopped the server (process {running.triton.pid})." if running else NOT_UP)
    return 0


def show_status(options: argparse.Namespace) -> int:
    """Show what is loaded and how it does; return 0 only if all is ready, 3 if it is but for what is left out."""
    if options.watch:
        return dashboard.watch(in_json=options.json)
    running = state.running()
    if running is None:
        print(json.dumps({"running": False, "ready": False}) if options.json else NOT_UP)
        return 1
    found = status.look(running)
    if options.json:
        print(json.dumps(status.as_json(found)))
    else:
        dashboard.show(found)
    return found.exit_code


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
