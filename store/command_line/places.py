"""What the options name: the database, the spool, where whole inputs are; each in its default place without one."""

import argparse
import os
from pathlib import Path

from store.database import Database, default_folder
from store.payloads.moving import Payloads
from store.payloads.places import place_of

PATIENCE_S = 3600.0  # for what reads or changes all of a table


def database(options: argparse.Namespace, *, wait_s: float = 10.0) -> Database:
    """Return the database, which nobody has asked yet."""
    return Database(options.store, wait_s=wait_s)


def spool(options: argparse.Namespace) -> Path:
    """Return the folder of the spool."""
    named: Path | None = options.spool
    return named or default_folder() / "spool"


def payloads(options: argparse.Namespace) -> Payloads:
    """Return whole inputs, those that wait in the spool and those in their place."""
    place = options.place or os.environ.get("PAYLOADS_URL") or str(default_folder() / "payloads")
    return Payloads(spool(options), place_of(place))
