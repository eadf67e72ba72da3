"""What `python -m deploy drill` does; it returns the exit code."""

import argparse
import json

from contracts import layout
from deploy.drill import events, results
from deploy.drill.run import DrillSettings, drill


def run_drill(options: argparse.Namespace) -> int:
    """Upgrade, harm and kill a server under load; return 0 only if its clients noticed no more than they may."""
    settings = DrillSettings(
        repository=options.repository.resolve(),
        model=options.model,
        images=tuple(options.image),
        requests=options.requests,
        connections=options.connections,
        device=options.device,
        ensembles=options.ensembles,
    )
    result = drill(settings, events.chosen(options.only))
    folder = results.save(result, layout.artifacts() / "drill")
    if options.json:
        print(json.dumps({**result.as_json(), "folder": str(folder)}))
    else:
        results.show(result, folder)
    return 0 if result.passed else 1
