"""Lock what a model asks for: pip resolves it beside the server's numpy; every version and file is written down."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cli.installing.environments import LOG, InstallError
from contracts import layout
from deploy.errors import RequirementsError
from deploy.layers import report, requirements
from deploy.layers.report import Package
from deploy.layers.requirements import LOCK, SERVERS, TEXT, Requirements
from deploy.triton import environment

_HASH = re.compile(r"--hash[= ](\S+)")


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
            resolved = report.resolve(text, ["--constraint", limits], Path(scratch))
        except InstallError as error:
            said = log.read_text(errors="replace")
            raise RequirementsError(
                f"{wanted.model}: {layout.shown(text)} cannot be locked", note=_reason(said), hint=_hint(said, servers)
            ) from error
    options = [entry for entry in wanted.entries if requirements.is_option(entry)]
    hashes = report.hashes(resolved)
    for name, more in report.hashes_elsewhere(wanted, options, resolved).items():
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


def _pins(resolved: Sequence[Package], hashes: Mapping[str | None, list[str]]) -> Iterator[str]:
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
