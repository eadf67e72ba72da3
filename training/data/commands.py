"""The stages of a family's data, as DVC runs them, or somebody by hand.

  python -m training data ingest FAMILY              raw: the files of the periods that params.yaml chooses
  python -m training data validate FAMILY raw        the gate: stops with the names of the expectations that failed
  python -m training data transform FAMILY           interim: cleaned and joined
  python -m training data validate FAMILY processed  the gate before training
  python -m training data sample FAMILY              a small part, to try something
  python -m training data keep FAMILY                what was trained last: its checkpoint, figures and curves
  python -m training data released FAMILY            which release was made of that

All of them, and only those that something has changed for: .venv-data/bin/dvc repro -P
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli import commands
from cli.commands import Command
from contracts import layout
from training.data import gate, parameters, places, staged, verdict, webhook
from training.data.folders import filled, replaced
from training.errors import DataError


def main(arguments: Sequence[str]) -> int:
    """Carry out the command that `arguments` name, behind `python -m training data`; return the exit code."""
    return commands.run("python -m training data", __doc__, COMMANDS, arguments)


def ingest(options: argparse.Namespace) -> int:
    """Write the raw files."""
    where, chosen = places.of(options.family), parameters.read(_params(options), "ingest")
    with replaced(where.raw) as folder:
        wrote = staged.stages(options.family).ingest(folder, chosen)
    return _done(wrote, where.raw, f"validate {options.family} raw")


def validate(options: argparse.Namespace) -> int:
    """Ask the gate, and stop where it is not passed."""
    url = webhook.address(options.webhook)
    found = gate.ask(options.family, options.gate, options.params)
    if options.json:
        print(verdict.as_json(found))
    if found.failed:
        raise gate.stop(found, url)
    gate.keep(found)
    if not options.json:
        count = f"{len(found.outcomes)} expectations of {options.gate} data are met"
        print(f"{count}, in {sum(found.rows.values()):,} rows of {len(found.rows)} tables")
        print(f"Data docs: {layout.shown(Path(found.docs))}")
        print(f"Next: {_AFTER[options.gate].format(options.family)}")
    return 0


def transform(options: argparse.Namespace) -> int:
    """Write the interim files."""
    where = places.of(options.family)
    _see(where.raw, f"ingest {options.family}")
    with filled(where.interim) as folder:  # it also holds the tables that features are made of
        wrote = staged.stages(options.family).transform(where.raw, folder)
    return _done(wrote, where.interim, None)


def sample(options: argparse.Namespace) -> int:
    """Write the sample."""
    where, chosen = places.of(options.family), parameters.read(_params(options), "sample")
    _see(where.processed, f"validate {options.family} processed")
    with replaced(where.sample) as folder:
        wrote = staged.stages(options.family).sample(where.processed, folder, chosen)
    return _done(wrote, where.sample, None)


def keep(options: argparse.Namespace) -> int:
    """Keep the newest checkpoint with its figures."""
    from training.data import kept  # torch takes seconds to import

    where = places.of(options.family)
    told = kept.write(options.family, where.trained)
    print(f"Kept in {layout.shown(where.trained)}: {told}")
    print(f"Next: python -m export {options.family} --checkpoint {layout.shown(where.trained / kept.CHECKPOINT)}")
    return 0


def released(options: argparse.Namespace) -> int:
    """Keep which release was made of the checkpoint."""
    from training.data import released

    where = places.of(options.family)
    told = released.write(options.family, where.trained, where.released)
    print(f"Kept in {layout.shown(where.released)}: {told}")
    print("Next: python -m deploy up")
    return 0


def _see(folder: Path, before: str) -> None:
    if not folder.is_dir():
        hint = f"python -m training data {before}; or all that comes before it: {_REPRO}"
        raise DataError(f"there is no {layout.shown(folder)}", hint=hint)


def _done(wrote: str, folder: Path, following: str | None) -> int:
    print(f"Wrote {wrote} into {layout.shown(folder)}")
    print(f"Next: python -m training data {following}" if following else f"Next: {_REPRO}")
    return 0


def _params(options: argparse.Namespace) -> Path:
    return options.params or parameters.path_of(options.family)


def _family(parser: argparse.ArgumentParser) -> None:
    known = staged.with_stages()
    parser.add_argument("family", choices=known, metavar="FAMILY", help=f"one of {', '.join(known)}")


def _chosen(parser: argparse.ArgumentParser) -> None:
    _family(parser)
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help="default: params.yaml in the family's folder pipeline"
    )


def _gate(parser: argparse.ArgumentParser) -> None:
    _chosen(parser)
    parser.add_argument("gate", choices=staged.GATES, help="which data is judged")
    parser.add_argument("--webhook", metavar="URL", help=f"is told what failed (default: ${webhook.VARIABLE})")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


_REPRO = ".venv-data/bin/dvc repro -P"
_AFTER = {"raw": "python -m training data transform {}", "processed": _REPRO}
_HERE = "training.data.commands"
COMMANDS = (
    Command("ingest", "write the raw files of the periods that params.yaml chooses", f"{_HERE}:ingest", _chosen),
    Command("validate", "judge raw or processed data by what is expected of it", f"{_HERE}:validate", _gate),
    Command("transform", "clean and join the raw files", f"{_HERE}:transform", _family),
    Command("sample", "write a small part of what training reads", f"{_HERE}:sample", _chosen),
    Command("keep", "keep what was trained last, with figures and curves", f"{_HERE}:keep", _family),
    Command("released", "keep which release was made of that", f"{_HERE}:released", _family),
)
