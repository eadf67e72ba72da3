"""Feast's feature server: `python -m training features serve FAMILY`.

Of its routes those are left that read: others let whoever reaches it write values and start materialisations.
"""

import argparse
import logging
from typing import Any

import uvicorn
from feast.feature_server import get_app

from training.errors import FeatureError
from training.families import Features
from training.features import declared, store
from training.features.command_line import PROGRAM
from training.features.materializing import last

READING = ("/get-online-features", "/health")
_NOT_STARTED = (1, 3)  # uvicorn's own exit codes
_REGISTRY_S = 5  # after so long it knows of views that were registered since


def run(options: argparse.Namespace) -> int:
    """Do what the command says, until it is stopped."""
    features = declared.of(options.family)
    opened = store.opened(options.family, features, options.store)
    if not any(last(opened, lookup.view) for lookup in features.declaration.views):
        raise FeatureError(
            f"the online store of {options.family} is empty", hint=f"{PROGRAM} materialize {options.family}"
        )
    _ask_once(opened, features, options.store)
    server = uvicorn.Server(
        uvicorn.Config(app(opened), host=options.host, port=options.port, log_level="warning", access_log=False)
    )
    logging.getLogger("uvicorn.error").addFilter(_in_a_line)
    where = f"{options.host}:{options.port}"
    print(f"Serving the features of {options.family} at http://{where}; Ctrl-C stops it", flush=True)
    try:
        server.run()
    except SystemExit as error:
        if error.code not in _NOT_STARTED:  # it was told to stop
            raise
        raise FeatureError(f"{where} cannot be listened on", hint="--port names another") from error
    return 0


def _ask_once(opened: Any, features: Features, name: str) -> None:
    """Ask every view for what nobody has, so that no caller waits for a first connection, or finds a store gone."""
    with store.reached(name):
        for lookup in features.declaration.views:
            wanted = [f"{lookup.view}:{fill.column}" for fill in lookup.fills]
            opened.get_online_features(features=wanted, entity_rows=[store.nobody(features.declaration, lookup)])


def app(opened: Any) -> Any:
    """Return Feast's application with the routes that read."""
    found = get_app(opened, registry_ttl_sec=_REGISTRY_S)
    found.router.routes[:] = [route for route in found.router.routes if getattr(route, "path", "") in READING]
    return found


def _in_a_line(record: logging.LogRecord) -> bool:
    """Have a request that nobody can answer cost a line of the log, and no traceback."""
    if record.exc_info and (error := record.exc_info[1]) is not None:
        record.msg, record.args, record.exc_info = f"{type(error).__name__}: {error}", (), None
    return True
