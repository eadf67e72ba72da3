"""Remove old releases: python -m export prune [MODEL] --keep N [--dry-run].

Never the one that serves, nor the way back from it, nor what a configuration or a running server asks for.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts import bundle, layout, repository
from contracts.errors import PublishError
from export.errors import ExportError
from export.published import releases
from export.published.releases import Release


@dataclass(frozen=True)
class Verdict:
    """What becomes of a release that is not one of the newest."""

    release: Release
    size_bytes: int
    kept_because: str | None = None  # None: it is removed

    def __str__(self) -> str:
        told = f"{self.release.network} version {self.release.version} ({self.release.state})"
        return f"{told}: kept, {self.kept_because}" if self.kept_because else f"{told}: {self.size_bytes / 1e6:.1f} MB"


def prune(options: argparse.Namespace) -> int:
    """Remove the releases of a network, or of each, that are older than its newest ones; return the exit code."""
    root: Path = options.repository
    found = [release for release in releases.every(root, options.model) if release.has_manifest]
    if not found:
        raise ExportError(
            f"nothing to prune in {layout.shown(root / (options.model or ''))}", hint="python -m export list"
        )
    verdicts: list[Verdict] = []
    for network in sorted({release.network for release in found}):
        for verdict in _pruned(root, network, options.keep, dry_run=options.dry_run):
            verdicts.append(verdict)
            if not options.json:
                print(verdict if verdict.kept_because or options.dry_run else f"{verdict}, removed", flush=True)
    removed = [verdict for verdict in verdicts if verdict.kept_because is None]
    freed = sum(verdict.size_bytes for verdict in removed)
    if options.json:
        print(json.dumps(_described(verdicts) | {"freed_bytes": freed, "dry_run": options.dry_run}, indent=2))
    elif not removed:
        print("Nothing to remove")
    else:
        print(f"{'Would free' if options.dry_run else 'Freed'} {freed / 1e6:.1f} MB")
    return 0


def plan(root: Path, network: str, keep: int) -> list[Verdict]:
    """Decide about each release of a network but its newest `keep`, oldest first. What was not exported is left alone.

    Versions never end before the newest one, so that no number is given a second time.
    """
    folder = root / network
    exported = [release for release in releases.every(root, network) if release.has_manifest]
    old = [release for release in exported[:-keep] if not release.directory.is_symlink()]  # one that is kept elsewhere
    held = {r.version: "a running server has it" for r in exported if repository.is_held(r.directory)}
    reasons = _ways_back(folder, held) | held | bundle.asked_for(root, network) | _needed(folder)
    return [Verdict(release, _size_bytes(release.directory), reasons.get(release.version)) for release in old]


def _pruned(root: Path, network: str, keep: int, *, dry_run: bool) -> Iterator[Verdict]:
    """Carry out the plan, and yield each verdict when that is done."""
    if dry_run:
        yield from plan(root, network, keep)
        return
    folder = root / network
    with repository.locked(folder):
        repository.remove_leftovers(folder)
        for verdict in plan(root, network, keep):
            if verdict.kept_because is None and not repository.remove(folder, verdict.release.version):
                raise PublishError(f"{verdict.release.directory} was not removed: a server has just begun to serve it")
            yield verdict


def _needed(folder: Path) -> dict[int, str]:
    """Return {version: why} of what serves, as the repository says, and of the ways back from it."""
    live = repository.versions(folder)
    return _ways_back(folder, live[-1:]) | dict.fromkeys(live[-1:], "it serves")


def _ways_back(folder: Path, serving: Iterable[int]) -> dict[int, str]:
    """Return {version: why} of the ways back from each version: what a roll back takes, and the newest before.

    A running server may serve what is not the newest in the repository: what is there is for its next `reload`.
    """
    live = repository.versions(folder)
    parked = [version for version in repository.parked(folder) if repository.refusal(folder, version) is None]
    found = set[int]()
    for one in serving:
        for versions in (live, [*live, *parked]):
            found |= {max((version for version in versions if version < one), default=one)}
        found.discard(one)
    return dict.fromkeys(found, "the way back")


def _size_bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def _described(verdicts: list[Verdict]) -> dict[str, object]:
    def named(verdict: Verdict) -> dict[str, object]:
        release = verdict.release
        return {"model": release.network, "version": release.version, "size_bytes": verdict.size_bytes}

    return {
        "removed": [named(verdict) for verdict in verdicts if verdict.kept_because is None],
        "kept": [named(verdict) | {"because": verdict.kept_because} for verdict in verdicts if verdict.kept_because],
    }
