"""A real registry of images on this machine, Debian's docker-registry, with skopeo to ask it."""

import hashlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts import layout
from deploy.triton.ports import free_ports
from tests.conftest import wait_for
from tests.packages import started_by, unpack

_PACKAGES = ("docker-registry", "skopeo")
_UNPACKED = layout.artifacts() / "tools" / "registry"
_SETTINGS = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: {address}}}\n"
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True)
class Registry:
    """A registry that is up, over plain HTTP."""

    address: str  # HOST:PORT
    home: Path  # as HOME, it lets skopeo ask a registry without TLS

    def push(self, name: str, tag: str, content: str) -> str:
        """Put an image under a tag, for one platform behind an index, as a publisher does: the index's digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "author": content, "rootfs": {"type": "layers"}})
        described = self._describe(_CONFIG, config.encode())
        upload = self._send("POST", f"{name}/blobs/uploads/").headers["Location"]
        self._send("PUT", f"{upload}&digest={described['digest']}", config.encode())
        manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": []}).encode()
        inner = self._describe(_MANIFEST, manifest)
        self._send("PUT", f"{name}/manifests/{inner['digest']}", manifest, _MANIFEST)
        platform = {"platform": {"architecture": "amd64", "os": "linux"}}
        index = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [inner | platform]}).encode()
        self._send("PUT", f"{name}/manifests/{tag}", index, _INDEX)
        return str(self._describe(_INDEX, index)["digest"])

    @staticmethod
    def _describe(kind: str, content: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _send(self, method: str, path: str, content: bytes = b"", kind: str = "application/octet-stream"):  # type: ignore[no-untyped-def]
        url = path if path.startswith("http") else f"http://{self.address}/v2/{path}"
        request = urllib.request.Request(url, content, {"Content-Type": kind}, method=method)
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)


def program(name: str) -> Path:
    """docker-registry or skopeo: the machine's own, or Debian's, unpacked once, which needs no root."""
    if found := shutil.which(name):
        return Path(found)
    if not _UNPACKED.exists():
        try:
            unpack(_PACKAGES, _UNPACKED)
        except OSError as error:
            install = f"sudo apt-get update && sudo apt-get install {' '.join(_PACKAGES)}"
            pytest.skip(f"needs {name}: {install} ({error})")
    return started_by(_UNPACKED, name)


@contextmanager
def started(folder: Path) -> Iterator[Registry]:
    """Start a registry that keeps what it has in `folder`."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    (folder / "config.yml").write_text(_SETTINGS.format(folder=folder, address=address))
    containers = folder / "home" / ".config" / "containers"
    containers.mkdir(parents=True)
    (containers / "registries.conf").write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    with (folder / "log").open("w") as log:
        command: list[str | Path] = [program("docker-registry"), "serve", folder / "config.yml"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "listening on" in (folder / "log").read_text(), timeout_s=20)
        yield Registry(address, folder / "home")
    finally:
        process.terminate()
        process.wait(20)
