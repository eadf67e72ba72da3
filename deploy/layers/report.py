"""What pip would install, by its own report: versions, and the hashes of the files that it would take.

https://pip.pypa.io/en/stable/reference/installation-report/
"""

import itertools
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cli.installing.environments import LOG, InstallError, pip_install
from deploy.layers import requirements
from deploy.layers.requirements import SERVERS, TEXT, Requirements
from deploy.triton import environment

Package = Mapping[str, Any]  # an entry of the report's `install`
# Where a lock may be installed that was made elsewhere: other wheels of the same versions.
_PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = tuple(
    tuple(
        f"--platform={kind}_{machine}"
        for kind in ("manylinux_2_35", "manylinux_2_28", "manylinux_2_27", "manylinux2014")
    )
    for machine in ("x86_64", "aarch64")
)


def resolve(text: Path, options: Sequence[str | Path], scratch: Path) -> list[Package]:
    """Let pip say what it would install.

    Args:
        text: A requirements.txt.
        options: More for pip.
        scratch: A folder; pip's log stays in it.

    Raises:
        InstallError: pip finds no versions that go together.
    """
    report = scratch / "report.json"
    told = ["--dry-run", "--ignore-installed", "--report", report, *options]
    pip_install(environment.models_pip(), text, told, home=scratch, log=scratch / LOG)
    found: list[Package] = json.loads(report.read_text())["install"]
    return found


def hashes(resolved: Sequence[Package]) -> dict[str | None, list[str]]:
    """{name: the hash of the file that pip takes}; none of what comes from version control, where the commit is one."""
    found: dict[str | None, list[str]] = {}
    for package in resolved:
        known = package["download_info"].get("archive_info", {}).get("hashes", {})
        own = requirements.name_of(package["metadata"]["name"])
        found[own] = [f"sha256:{known['sha256']}"] if "sha256" in known else []
    return found


def hashes_elsewhere(
    wanted: Requirements, options: Sequence[str], resolved: Sequence[Package]
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
                for name, taken in hashes(resolve(text, there, Path(scratch))).items():
                    found.setdefault(name, []).extend(taken)
    return found


def _absolute(option: str, directory: Path) -> str:
    """Return an option of pip's that names a folder beside the file as it is said elsewhere."""
    name, _, value = option.replace("=", " ", 1).partition(" ")
    return f"{name} {(directory / value).resolve()}" if value and (directory / value).exists() else option
