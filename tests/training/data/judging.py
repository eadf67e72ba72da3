"""Judges many folders of data in one process of the environment for data: starting one costs more than judging.

.venv-data/bin/python -m tests.training.data.judging JOBS.json
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from training.data import expecting, places


def main() -> None:
    """Judge each job, {"gate", "raw", "interim", "processed", "parameters", "to"}, and write its verdict."""
    for job in json.loads(Path(sys.argv[1]).read_text()):
        to = Path(job["to"])
        folders = {name: Path(job[name]) for name in ("raw", "interim", "processed") if name in job}
        where = replace(places.of(job["family"]), **folders, docs=to.with_suffix(".docs"))
        found = expecting.judge(job["family"], job["gate"], job["parameters"], where)
        to.write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
