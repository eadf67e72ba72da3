"""The arguments of `python -m training sweep`."""

import argparse

from cli.commands import count, positive_count
from training.sweep.fits.trial import LATENCY, QUALITY

DESCRIPTION = """\
Search for parameters: trials of `python -m training fit`, each with other values of what configs/sweeps/FAMILY/ says
is searched, drawn by what the trials before have shown (TPE), stopped early where others are better (halving).

  python -m training sweep FAMILY --preset NAME                  20 trials, one after the other
  python -m training sweep FAMILY --preset NAME --trials 50      the same search, gone on with
  python -m training sweep FAMILY --preset NAME --workers 4      four at a time; in a second terminal: four more
  python -m training sweep FAMILY --storage postgresql://…       several machines: one search
  python -m training sweep FAMILY --with ray                     by Ray Tune with ASHA

It may be stopped or killed at any moment: the same command goes on. What else is typed goes to every fit, as in
--trainer.max_epochs 3. Trials are in artifacts/sweeps/STUDY/trials/ and in MLflow, below a run of the search.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("--preset", help="a named variation that every trial starts from, as in `fit`")
    parser.add_argument(
        "--space",
        metavar="NAME",
        help="what is searched: a file in configs/sweeps/FAMILY/, or a path (default: the preset)",
    )
    parser.add_argument(
        "--trials", type=positive_count, default=20, metavar="N", help="of the study, in all (default: 20)"
    )
    parser.add_argument("--workers", type=positive_count, default=1, metavar="N", help="trials at a time (default: 1)")
    parser.add_argument(
        "--objectives", nargs="+", choices=(QUALITY, LATENCY), help="what counts (default: what the space says)"
    )
    parser.add_argument("--study", metavar="NAME", help="what the search is called (default: FAMILY-SPACE)")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="its database: sqlite:///FILE, postgresql://… (default: $SWEEP_STORAGE, or a file in artifacts/sweeps/)",
    )
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="what drawing begins with (default: 0)")
    parser.add_argument("--with", dest="by", choices=("optuna", "ray"), default="optuna", help="(default: optuna)")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="a Ray cluster that is up (default: one of its own, of --workers)"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
