"""Lock what a model asks for: pip resolves it beside the server's numpy, and every version is written down."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cli.environments import LOG, InstallError, pip_install
from contracts import layout
from deploy.errors import RequirementsError
from deploy.layers import requirements
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
        report, limits, log = Path(scratch, "report.json"), Path(scratch, "servers.txt"), Path(scratch, LOG)
        limits.write_text(f"{SERVERS}=={servers}\n")
        options: list[str | Path] = ["--dry-run", "--ignore-installed", "--report", report, "--constraint", limits]
        try:
            pip_install([sys.executable, "-m", "pip"], text, options, home=Path(scratch), log=log)
        except InstallError as error:
            said = log.read_text(errors="replace")
            raise RequirementsError(
                f"{wanted.model}: {layout.shown(text)} cannot be locked", note=_reason(said), hint=_hint(said, servers)
            ) from error
        resolved = json.loads(report.read_text())["install"]
    hashes = {requirements.name_of(entry): _HASH.findall(entry) for entry in wanted.entries}
    lines = [entry for entry in wanted.entries if requirements.is_option(entry)]
    lines += sorted(_pins(resolved, hashes), key=str.lower)
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


def _pins(resolved: list[Mapping[str, Any]], hashes: Mapping[str | None, list[str]]) -> Iterator[str]:
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
