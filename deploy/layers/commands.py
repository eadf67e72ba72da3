"""What `python -m deploy environments` does: list, lock and install the packages that models have of their own."""

import argparse

from contracts import layout
from deploy.layers import layer, lock, requirements
from deploy.layers.requirements import LOCK, TEXT, Requirements


def environments(options: argparse.Namespace) -> int:
    """List them, or do what `options.action` says; return the exit code.

    Raises:
        RequirementsError: by the name of the model.
    """
    wanted = requirements.in_repository(options.repository, options.models)
    if not wanted:
        print(f"No model in {layout.shown(options.repository)} has packages of its own: none has a {TEXT}.")
        return 0
    if options.action == "lock":
        for each in wanted:
            if not (options.missing and each.is_locked):
                _lock(each)
        print("Next: python -m deploy environments build   (`up` and `reload` do it, too)")
        return 0
    if options.action == "build":
        for each in wanted:
            place = layer.build(each, print)
            print(f"{each.model}: {layout.shown(place) if place else 'nothing to install'}")
        return 0
    for each in wanted:
        print(f"{each.model}: {_state(each)}")
    return 0 if all(_is_installed(each) for each in wanted) else 1


def _lock(wanted: Requirements) -> None:
    if not wanted.entries:
        print(f"{wanted.model}: {LOCK} is all that it has, and stays")
        return
    found = lock.make(wanted)
    pins = [line.partition(" --hash")[0] for line in found.locked or () if not requirements.is_option(line)]
    print(f"{wanted.model}: {', '.join(pins) or 'nothing that the server does not have'}")


def _is_installed(wanted: Requirements) -> bool:
    place = layer.installed_at(wanted)
    return wanted.is_locked and (place is None or place.is_dir())


def _state(wanted: Requirements) -> str:
    if not wanted.is_locked:
        return f"{LOCK} is missing" if wanted.locked is None else f"{TEXT} has changed since it was locked"
    place = layer.installed_at(wanted)
    if place is None:
        return "nothing that the server does not have"
    count = sum(not requirements.is_option(line) for line in wanted.locked or ())
    packages = f"{count} package{'s' * (count != 1)}"
    return f"{packages} in {layout.shown(place)}" if place.is_dir() else f"{packages}, not installed"
