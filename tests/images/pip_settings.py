"""Where packages come from on this machine, for the pip inside a build: a pip.conf, and the files that it names.

pip's own files and the environment's PIP_… may name an index, certificates or folders of wheels, without which a build
here would find nothing. They are mounted while an image is built, and do not stay in it.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

PLACE = Path("/etc/pip.conf")  # where the pip of an image looks
# What says where packages come from, and how they are fetched; nothing of how or where they are installed.
_INDEXES = ("index-url", "extra-index-url")
_KEPT = {
    *(*_INDEXES, "find-links", "no-index", "trusted-host", "constraint"),
    *("cert", "client-cert", "proxy", "timeout", "default-timeout", "retries"),
}
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")  # that pip or Python would heed


@dataclass(frozen=True)
class PipSettings:
    """What a pip elsewhere needs in order to find the packages that the one here finds."""

    text: str  # of a pip.conf
    mounts: tuple[Path, ...]  # what it names of this machine

    def options(self, folder: Path) -> list[str]:
        """Write the pip.conf into `folder`; the options of `buildah bud` that let a build see it and what it names."""
        conf = folder / "pip.conf"
        conf.write_text(self.text)
        return [f"--volume={conf}:{PLACE}:ro", *(f"--volume={path}:{path}:ro" for path in self.mounts)]


def of_this_machine(environment: Mapping[str, str] | None = None) -> PipSettings:
    """Ask pip what it is told here, by its files and by the environment (default: this process's)."""
    told = dict(os.environ if environment is None else environment)
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=told, capture_output=True, text=True, check=True).stdout
    return from_listed(listed, told)


def from_listed(listed: str, environment: Mapping[str, str]) -> PipSettings:
    """Make them of what `pip config list` says: `global.index-url='…'`, the environment's as `:env:.index-url='…'`."""
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the later ones win
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            where, _, key = name.rpartition(".")
            if where == section and key in _KEPT:
                found[key] = str(ast.literal_eval(value))
    certificate = next((environment[name] for name in _CERTIFICATES if environment.get(name)), None)
    if certificate and "cert" not in found:
        found["cert"] = certificate
    lines = [f"{key} = " + "\n    ".join(value.split()) for key, value in sorted(found.items())]
    return PipSettings("\n".join(["[global]", *lines, ""]), _mounts(found))


def _mounts(settings: Mapping[str, str]) -> tuple[Path, ...]:
    """The files and folders of this machine that settings name, without those that lie in another of them."""
    found = set()
    for key, value in settings.items():
        for word in value.split():
            path = Path(unquote(urlparse(word).path) if word.startswith("file:") else word)
            if path.is_absolute() and path.exists():
                found.add(path.parent if key in _INDEXES else path)  # an index leads to files beside its pages
    return tuple(sorted(path for path in found if not found & set(path.parents)))
