"""How fresh everything is: `python -m training features status FAMILY`."""

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from training.features import declared, store
from training.features.command_line import PROGRAM
from training.features.materializing import last, newest


def run(options: argparse.Namespace) -> int:
    """Print of each view the newest row that there is, and up to when the online store has them."""
    features = declared.of(options.family)
    opened = store.opened(options.family, features, options.store)
    views: dict[str, dict[str, Any]] = {}
    with store.reached(options.store):
        for lookup in features.declaration.views:
            there, written = newest(options.family, lookup), last(opened, lookup.view)
            behind = None if written is None else max(0, round((there - written).total_seconds()))
            views[lookup.view] = {
                "newest": there.isoformat(),
                "materialized": None if written is None else written.isoformat(),
                "behind_s": behind,
                "served_s": round(store.ttl(lookup).total_seconds()) or None,
            }
    if options.json:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        print(json.dumps({"family": options.family, "store": options.store, "now": now, "views": views}, indent=2))
        return 0
    for view, told in views.items():
        up_to = told["materialized"] or "never"
        print(f"{view}: materialised up to {up_to}, the newest row is of {told['newest']}")
    if any(told["behind_s"] is None or told["behind_s"] > 0 for told in views.values()):
        print(f"Next: {PROGRAM} materialize {options.family}")
    return 0
