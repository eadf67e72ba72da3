"""What `python -m benchmarks gpu-day` takes."""

import argparse
from pathlib import Path

from cli.commands import Command, positive, positive_count
from contracts import layout


def _gpu_day(gpu_day: argparse.ArgumentParser) -> None:
    from benchmarks.gpu_day.steps import STEPS

    gpu_day.add_argument(
        "--export",
        default=layout.DEFAULT_FAMILY,
        metavar="ARGUMENTS",
        help="what to export, as python -m export takes it, e.g. '--onnx FILE --spec FILE --inputs FILE' (default: "
        "%(default)s, its newest checkpoint or one that is trained for it)",
    )
    gpu_day.add_argument(
        "--device", choices=["auto", "gpu", "cpu"], default="auto", help="cpu is a rehearsal (default: auto)"
    )
    gpu_day.add_argument(
        "--budget", type=positive, default=600, metavar="SECONDS", help="for all steps together (default: 600)"
    )
    gpu_day.add_argument(
        "--only", nargs="+", choices=[step.name for step in STEPS], metavar="STEP", help="of: %(choices)s"
    )
    gpu_day.add_argument(
        "--requests", type=positive_count, default=10_000, metavar="N", help="answers to look at (default: 10,000)"
    )
    gpu_day.add_argument(
        "--drill-requests", type=positive_count, default=5_000, metavar="N", help="of the drill (default: 5,000)"
    )
    gpu_day.add_argument(
        "--folder", type=Path, metavar="DIRECTORY", help="for the evidence (default: artifacts/gpu-day/TIME)"
    )


GPU_DAY = Command(
    "gpu-day",
    "versions, plans, CUDA graphs, answers, upgrades and crashes on a GPU: ten minutes, a bundle of evidence",
    "benchmarks.gpu_day.commands:main",
    _gpu_day,
)
