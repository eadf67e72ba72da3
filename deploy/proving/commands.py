"""What `python -m deploy prove` does; it returns the exit code."""

import argparse
import functools
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from contracts import bundle, layout, manifest
from contracts.bundle import Bundle
from deploy.errors import GateError, RepositoryError, SettingsError, SetupError, StartError
from deploy.proving import gate, questions
from deploy.proving.gate import Verdict
from deploy.triton import environment

NO_SERVER = 3  # the exit code where no server can be started: nothing was found out about the release


def prove(options: argparse.Namespace) -> int:
    """Let a server of its own load a version, published or about to be, and answer its golden requests.

    Raises:
        GateError: it does not pass.
    """
    release = _bundle(options.directory)
    say = functools.partial(print, flush=True, file=sys.stderr)
    try:
        verdict = gate.prove(release, environment.find(say), say, options.timeout)
    except (SettingsError, SetupError, StartError) as error:
        say(f"error: {error}")
        return NO_SERVER
    if options.json:
        print(json.dumps(asdict(verdict)))
    if (failed := verdict.failed) is not None:
        which = f"{release.network} version {release.version}"
        alone = "what depends on its batch is served a row at a time: a spec that says max = 1 of the batch"
        raise GateError(
            f"{which} does not pass the serve gate: {failed.name} ({failed.device})",
            note=failed.fault,
            hint=alone if failed.name in questions.IN_COMPANY and "a wrong answer" in failed.fault else None,
        )
    if not options.json:
        _tell(verdict)
    return 0


def _tell(verdict: Verdict) -> None:
    for device in dict.fromkeys(check.device for check in verdict.checks):
        counts = Counter({check.name: check.count for check in verdict.checks if check.device == device})
        print(f"  {device}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for model in verdict.unasked:
        print(f"  {model} has no golden requests: it loaded, no more is known")
    print(f"✓ {verdict.model} version {verdict.version}: served by Triton {verdict.triton} in {verdict.seconds:.1f} s")


def _bundle(directory: Path) -> Bundle:
    """Return the bundle that a version's directory is, wherever it lies: a staged one has not its number as its name.

    Raises:
        ManifestError: its manifest is damaged.
        RepositoryError: it is no version.
    """
    directory = directory.resolve()
    if (directory / manifest.FILE_NAME).is_file():
        return bundle.at(directory)
    if directory.is_dir() and directory.name.isdecimal():
        return bundle.of(directory.parent.parent, directory.parent.name, int(directory.name))
    raise RepositoryError(
        f"{layout.shown(directory)} is no version of a model", hint="name one: model_repository/MODEL/VERSION"
    )
