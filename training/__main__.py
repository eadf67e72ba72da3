"""Train, validate or test a model family; or write some of its test inputs as files.

  python -m training fit fashion                     the default configuration
  python -m training fit fashion --preset demo       a few minutes on a laptop
  python -m training fit fashion --ckpt_path artifacts/checkpoints/fashion/RUN/last.ckpt    resume
  python -m training test fashion --ckpt_path artifacts/checkpoints/fashion/RUN/best.ckpt
  python -m training examples fashion --count 100    test images as PNG, with labels.csv, to try a server with
  python -m training fit fashion --help              every flag of the trainer, the model and the data

Everything after the family goes to Lightning: --trainer.max_epochs 3, --trainer.precision bf16-mixed,
--trainer.devices 4, --model.lr 0.05, --early_stopping.patience 5, --seed_everything 7, …
Runs are tracked by MLflow in artifacts/mlflow.db (or in $MLFLOW_TRACKING_URI); look at them with
  mlflow ui --backend-store-uri sqlite:///artifacts/mlflow.db
"""

import argparse
import sys
from collections.abc import Sequence

from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError
from training.families import FAMILIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that `arguments` name; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m training",
        usage="python -m training {fit,validate,test,examples} FAMILY [--preset NAME] [Lightning's flags]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("subcommand", choices=["fit", "validate", "test", "examples"], help="what to do")
    parser.add_argument("family", choices=list(FAMILIES), help="the model family")
    parser.add_argument("--preset", help="a named variation in the family's folder, e.g. demo")
    parser.add_argument("--count", type=int, metavar="N", help="examples: how many files (default: 100)")
    if {"-h", "--help"} & set(given[2:]):  # Lightning's help, not ours
        options, flags = parser.parse_args(given[:2]), ["--help"]
    else:
        options, flags = parser.parse_known_args(given)

    if options.subcommand == "examples":
        if flags or options.preset:
            parser.error(f"examples takes --count only, not {' '.join(flags) or '--preset'}")
        if options.count is not None and options.count < 1:
            parser.error("--count must be at least 1")
        return _examples(options.family, options.count or 100)
    if options.count is not None:
        parser.error("--count is for examples")

    from training import cli  # torch and Lightning take seconds to import: not for --help

    cli.run(options.subcommand, options.family, options.preset, flags)
    return 0


def _examples(family: str, count: int) -> int:
    from training import families

    directory = layout.examples() / family
    written = families.load(family).write_examples(directory, count)
    print(f"Wrote {written:,} test inputs and labels.csv into {layout.shown(directory)}")
    print(f"Next, with a server up: python -m clients classify {layout.shown(directory)}")
    return 0


if __name__ == "__main__":
    run_command_line(main, ProjectError)
