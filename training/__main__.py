"""Train, validate or test a model family; write some of its test inputs as files; make a new family.

  python -m training fit FAMILY                      the default configuration
  python -m training fit FAMILY --preset demo        a few minutes on a laptop
  python -m training fit FAMILY --ckpt_path artifacts/checkpoints/FAMILY/RUN/last.ckpt    resume
  python -m training test FAMILY --ckpt_path artifacts/checkpoints/FAMILY/RUN/best.ckpt
  python -m training examples FAMILY --count 100     test inputs as files, with labels.csv, to try a server with
  python -m training sweep FAMILY --preset NAME      a search for better parameters, resumed by the same command
  python -m training compare FAMILY                  its models on the test split, beside the baseline's
  python -m training features build FAMILY           features for training and serving, by Feast: `features --help`
  python -m training send artifacts/checkpoints/FAMILY/RUN           what MLflow was not told while it was gone
  python -m training new NAME --like FAMILY          a family of your own, to begin with: a copy under a new name
  python -m training data --help                     the stages from raw data to what is trained on, and their gates
  python -m training fit FAMILY --help               every flag of the trainer, the model and the data

Everything after the family goes to Lightning: --trainer.max_epochs 3, --trainer.precision bf16-mixed,
--trainer.devices 4, --model.lr 0.05, --early_stopping.patience 5, --seed_everything 7,
--trainer.accumulate_grad_batches 4, --trainer.profiler simple, --run.name NAME, --run.tags '{team: vision}', …
Runs are tracked by MLflow in artifacts/mlflow.db (or in $MLFLOW_TRACKING_URI); look at them with
  mlflow ui --backend-store-uri sqlite:///artifacts/mlflow.db
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cli.commands import positive_count
from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError
from training.families import FAMILIES
from training.sweep import options as searches
from training.sweep.fits import trial

_LIGHTNINGS = {
    "fit": "train, and test the best checkpoint",
    "validate": "judge a checkpoint on the validation split",
    "test": "judge a checkpoint on the test split",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that `arguments` name; return the exit code."""
    trial.end_with_the_search()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["data"]:
        from training.data import commands

        return commands.main(given[1:])
    if given[:1] == ["features"]:
        from training.features.command_line import in_its_environment

        in_its_environment(given[1:])
    parser = _parser()
    if given[:1] and given[0] in _LIGHTNINGS and {"-h", "--help"} & set(given[2:]):  # Lightning's help, not ours
        options, flags = parser.parse_args(given[:2]), ["--help"]
    else:
        options, flags = parser.parse_known_args(given)
    if options.subcommand in _LIGHTNINGS:
        from training.lightning import cli  # torch and Lightning take seconds to import: not for --help

        cli.run(options.subcommand, options.family, options.preset, flags)
        return 0
    if options.subcommand == "sweep":
        from training.sweep import searching

        return searching.run(options, flags)
    if options.subcommand == "compare" and not flags:
        from training.estimators import comparing

        comparing.run(options.family, as_json=options.json)
        return 0
    if options.subcommand == "send" and not flags:
        return _send(options.run)
    if flags:
        parser.error(f"{options.subcommand} does not take {' '.join(flags)}")
    if options.subcommand == "new":
        return _new(options.name, options.like, options.network)
    return _examples(options.family, options.count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        usage="python -m training {fit,validate,test,compare,examples} FAMILY [--preset NAME] [Lightning's flags]\n"
        "       python -m training data {ingest,validate,transform,sample,keep,released} FAMILY\n"
        "       python -m training features {build,materialize,serve,status} FAMILY\n"
        "       python -m training send FOLDER\n"
        "       python -m training sweep FAMILY [--help]\n"
        "       python -m training new NAME [--like FAMILY] [--network NAME]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    chosen = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, what in _LIGHTNINGS.items():
        lightnings = chosen.add_parser(name, help=what, prog=f"python -m training {name}", allow_abbrev=False)
        _family(lightnings)
        lightnings.add_argument("--preset", help="a named variation in the family's folder, e.g. demo")
    sweep = chosen.add_parser(
        "sweep",
        help="search for better parameters",
        prog="python -m training sweep",
        allow_abbrev=False,
        description=searches.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _family(sweep)
    searches.add(sweep)
    examples = chosen.add_parser("examples", help="write test inputs as files", prog="python -m training examples")
    _family(examples)
    examples.add_argument("--count", type=positive_count, default=100, metavar="N", help="how many (default: 100)")
    compare = chosen.add_parser("compare", help="judge its models side by side", prog="python -m training compare")
    _family(compare)
    compare.add_argument("--json", action="store_true", help="print what was found as JSON")
    chosen.add_parser("features", help="features for training and serving: features --help", add_help=False)
    send = chosen.add_parser("send", help="tell MLflow what it missed", prog="python -m training send")
    send.add_argument("run", type=Path, metavar="FOLDER", help="the folder of a run's checkpoints")
    new = chosen.add_parser("new", help="make a family: a copy of another one", prog="python -m training new")
    new.add_argument("name", metavar="NAME", help="what it is called, and its folder")
    new.add_argument(
        "--like",
        choices=list(FAMILIES),
        default=layout.DEFAULT_FAMILY,
        metavar="FAMILY",
        help=f"the one to copy (default: {layout.DEFAULT_FAMILY})",
    )
    new.add_argument("--network", metavar="NAME", help="what its network is called behind the family's name")
    return parser


def _family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", choices=list(FAMILIES), metavar="FAMILY", help=f"one of {', '.join(FAMILIES)}")


def _examples(family: str, count: int) -> int:
    from training import families

    directory = layout.examples() / family
    written = families.load(family).write_examples(directory, count)
    print(f"Wrote {written:,} test inputs and labels.csv into {layout.shown(directory)}")
    queries, documents = (layout.shown(directory / name) for name in ("queries.txt", "documents.txt"))
    if requests := sorted(directory.glob("*.json")):  # as they are
        command = f"infer {families.spec(family).model} < {layout.shown(requests[0])}"
    elif (directory / "queries.txt").is_file():  # texts, a line each
        command = f"embed --model {family} --file {queries} --among {documents}"
    else:  # images
        command = f"classify {layout.shown(directory)}"
        command += f" --model {family}" if family != layout.DEFAULT_FAMILY else ""
    print(f"Next, with a server up: python -m clients {command}")
    return 0


def _send(folder: Path) -> int:
    from training.runs import outbox

    count = outbox.send(folder)
    print(f"Told MLflow {count:,} things of {layout.shown(folder)}" if count else "There is nothing that waits")
    return 0


def _new(name: str, like: str, network: str | None) -> int:
    from training import new_family

    made = new_family.make(name, like, network)
    print(f"Made the family {name}, so far the same as {like}:")
    print(*(f"  {layout.shown(path)}" for path in made.paths), sep="\n")
    print(new_family.next_steps(made))
    return 0


if __name__ == "__main__":
    run_command_line(main, ProjectError)
