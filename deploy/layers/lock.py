"""Lock what a model asks for: pip resolves it beside the server's numpy; every version and file is written down."""

import itertools
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cli.environments import LOG, InstallError, pip_install
from contracts import layout
from deploy.errors import RequirementsError
from deploy.layers import requirements
from deploy.layers.requirements import LOCK, SERVERS, TEXT, Requirements
from deploy.triton import environment

_HASH = re.compile(r"--hash[= ](\S+)")
# Where a lock may be installed that was made elsewhere: other wheels of the same versions.
_PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = tuple(
    tuple(
        f"--platform={kind}_{machine}"
        for kind in ("manylinux_2_35", "manylinux_2_28", "manylinux_2_27", "manylinux2014")
    )
    for machine in ("x86_64", "aarch64")
)


def make(wanted: Requirements) -> Requirements:
    """Resolve requirements.txt and write requirements.lock beside it; return both as they are now.

    Raises:
        RequirementsError: pip found no versions that go together, with what it said; or the lock cannot be written.
    """
    text = wanted.directory / TEXT
    servers = environment.pinned(SERVERS)
    with tempfile.TemporaryDirectory(prefix="lock-") as scratch:
        limits, log = Path(scratch, "servers.txt"), Path(scratch, LOG)
        limits.write_text(f"{SERVERS}=={servers}\n")
        try:
            resolved = _resolve(text, ["--constraint", limits], Path(scratch))
        except InstallError as error:
            said = log.read_text(errors="replace")
            raise RequirementsError(
                f"{wanted.model}: {layout.shown(text)} cannot be locked", note=_reason(said), hint=_hint(said, servers)
            ) from error
    options = [entry for entry in wanted.entries if requirements.is_option(entry)]
    hashes = _hashes(resolved)
    for name, more in _hashes_elsewhere(wanted, options, resolved).items():
        hashes[name] += [each for each in more if each not in hashes[name]]
    # What the author named stands, and nothing else.
    hashes |= {requirements.name_of(entry): own for entry in wanted.entries if (own := _HASH.findall(entry))}
    lines = [*options, *sorted(_pins(resolved, hashes), key=str.lower)]
    try:
        requirements.write_lock(wanted, lines)
    except OSError as error:
        raise RequirementsError(
            f"{wanted.model}: {layout.shown(wanted.directory / LOCK)} cannot be written: {error.strerror}",
            hint=f"make it where the repository can be changed: python -m deploy environments lock {wanted.model}",
        ) from error
    found = requirements.read(wanted.directory)
    assert found is not None  # it has just been written
    return found


def _resolve(text: Path, options: Sequence[str | Path], scratch: Path) -> list[Mapping[str, Any]]:
    """Let pip say what it would install, by its report."""
    report = scratch / "report.json"
    told = ["--dry-run", "--ignore-installed", "--report", report, *options]
    pip_install([sys.executable, "-m", "pip"], text, told, home=scratch, log=scratch / LOG)
    found: list[Mapping[str, Any]] = json.loads(report.read_text())["install"]
    return found


def _hashes(resolved: Sequence[Mapping[str, Any]]) -> dict[str | None, list[str]]:
    """{name: the hash of the file that pip takes}; none of what comes from version control, where the commit is one."""
    found: dict[str | None, list[str]] = {}
    for package in resolved:
        known = package["download_info"].get("archive_info", {}).get("hashes", {})
        own = requirements.name_of(package["metadata"]["name"])
        found[own] = [f"sha256:{known['sha256']}"] if "sha256" in known else []
    return found


def _hashes_elsewhere(
    wanted: Requirements, options: Sequence[str], resolved: Sequence[Mapping[str, Any]]
) -> dict[str | None, list[str]]:
    """Ask for the wheels that other Pythons and machines would take of what is no pure Python: {name: hashes}."""
    several = [
        f"{package['metadata']['name']}=={package['metadata']['version']}"
        for package in resolved
        if re.search(r"(?<!-none-any)\.whl$", package["download_info"]["url"])
        and not package.get("is_direct")
        and requirements.name_of(package["metadata"]["name"]) != SERVERS
    ]
    found: dict[str | None, list[str]] = {}
    if not several:
        return found
    with tempfile.TemporaryDirectory(prefix="lock-") as scratch:
        text = Path(scratch, TEXT)
        text.write_text("\n".join([*(_absolute(option, wanted.directory) for option in options), *several]))
        for python, platform in itertools.product(_PYTHONS, _PLATFORMS):
            there = [f"--python-version={python}", *platform, "--only-binary=:all:", "--no-deps", f"--target={scratch}"]
            with suppress(InstallError):  # there is none for it
                for name, hashes in _hashes(_resolve(text, there, Path(scratch))).items():
                    found.setdefault(name, []).extend(hashes)
    return found


def _absolute(option: str, directory: Path) -> str:
    """Return an option of pip's that names a folder beside the file as it is said elsewhere."""
    name, _, value = option.replace("=", " ", 1).partition(" ")
    return f"{name} {(directory / value).resolve()}" if value and (directory / value).exists() else option


def _pins(resolved: Sequence[Mapping[str, Any]], hashes: Mapping[str | None, list[str]]) -> Iterator[str]:
    """Yield a line for each package. All have hashes or none has: pip knows nothing in between."""
    names = {requirements.name_of(package["metadata"]["name"]) for package in resolved} - {SERVERS}
    if not all(hashes.get(name) for name in names):
        hashes = {}
    for package in resolved:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        own = requirements.name_of(name)
        if own == SERVERS:
            continue
        source = package["download_info"]
        pin = f"{name}=={version}"
        if package.get("is_direct"):
            pin = f"{name} @ {source['url']}"
            if "vcs_info" in source:  # the commit that a branch or a tag was at
                pin = f"{name} @ {source['vcs_info']['vcs']}+{source['url']}@{source['vcs_info']['commit_id']}"
        yield " ".join([pin, *(f"--hash={each}" for each in hashes.get(own, ()))])


def _reason(said: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    conflict = re.search(r"The conflict is caused by:\n((?: +.*\n)+)", said)
    causes = [line.strip() for line in conflict[1].splitlines()] if conflict else []
    return "\n  ".join([*causes, *errors][:8]) or said.strip()[-500:]


def _hint(said: str, servers: str) -> str:
    if re.search(rf"(?i)\b{SERVERS}\b", said):
        return (
            f"the server's {SERVERS} is {servers}, and a step gets its tensors in that: "
            "choose versions that take it, and leave it out itself"
        )
    return "is every name and version right, and the package index reachable?"
