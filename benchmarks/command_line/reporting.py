"""What the commands take that read results."""

import argparse
from pathlib import Path

from cli.commands import Command, positive


def _report(report: argparse.ArgumentParser) -> None:
    report.add_argument("result", type=Path, nargs="?", metavar="RESULT", help="default: the newest of `peers`")
    report.add_argument(
        "--folder", type=Path, metavar="DIRECTORY", help="where it goes (default: artifacts/benchmarks/report-RESULT)"
    )
    report.add_argument(
        "--price-per-core-hour", type=positive, metavar="PRICE", help="adds what the CPU of a million answers costs"
    )


def _compare(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("before", type=Path, metavar="BEFORE")
    compare.add_argument("after", type=Path, metavar="AFTER")
    compare.add_argument("--system", metavar="NAME", help="tell of this one alone, as in `ours` (default: of all)")
    compare.add_argument(
        "--least", type=positive, default=5, metavar="PERCENT", help="a change that matters (default: %(default)g)"
    )
    compare.add_argument("--json", action="store_true", help="one JSON object on stdout")


REPORT = Command(
    "report",
    "a result as one page that needs nothing else, and as Markdown with pictures",
    "benchmarks.reporting.page:main",
    _report,
)
COMPARE = Command(
    "compare",
    "two results: what is better or worse, and what cannot be told from noise",
    "benchmarks.reporting.comparing:main",
    _compare,
)
