"""Tokens of a real issuer, npm's oidc-provider, at the gateway's doors."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_ports, wait_for
from tests.gateway import whole
from tests.gateway.tritons import Running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")]

PROVIDER = """
import Provider from "oidc-provider";
const port = Number(process.argv[2]);
const SCOPES = "labels:infer *:read";
new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: "shop", client_secret: "secret", grant_types: ["client_credentials"], redirect_uris: [],
    response_types: [],
  }],
  scopes: ["openid", ...SCOPES.split(" ")],
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: SCOPES, audience: resource === "urn:models" ? "models" : "others", accessTokenTTL: 60,
        accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
}).listen(port);
"""


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("issuer")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    installed = ["npm", "install", "--no-audit", "--no-fund", "--silent", "oidc-provider"]
    subprocess.run(installed, cwd=folder, check=True, timeout=300)
    (folder / "provider.js").write_text(PROVIDER)
    port = free_ports(1)[0]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["node", "provider.js", str(port)], cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _is_up(url), 30)
        yield url
    finally:
        process.kill()
        process.wait()


def token(issuer: str, *, resource: str = "urn:models", scope: str = "labels:infer") -> str:
    form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
    secret = b64encode(b"shop:secret").decode()
    request = urllib.request.Request(
        f"{issuer}/token", urllib.parse.urlencode(form).encode(), {"authorization": f"Basic {secret}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(json.load(response)["access_token"])


def test_a_token_of_the_issuer_is_taken_at_both_doors_for_what_its_scopes_say(
    issuer: str, typed_triton: Running, tmp_path: Path
) -> None:
    with whole.up(tmp_path, typed_triton.address, oidc__issuer=issuer, oidc__audience="models") as gateway:
        own = token(issuer)
        body = {"rows": [{"image": "boot"}]}
        assert gateway.ask("POST", "/v1/models/labels/predict", body, key=own).status == 200
        assert gateway.ask("POST", "/v1/models/vectors/predict", {"rows": [{"text": "a"}]}, key=own).status == 403
        assert gateway.ask("GET", "/v2/models/labels", key=own).status == 403
        assert gateway.ask("GET", "/v2/models/labels", key=token(issuer, scope="*:read")).status == 200
        for wrong in (token(issuer, resource="urn:others"), own[:-4] + "AAAA", own.rsplit(".", 1)[0] + "."):
            assert gateway.ask("POST", "/v1/models/labels/predict", body, key=wrong).status == 401


def _is_up(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/.well-known/openid-configuration", timeout=2).close()
    except OSError:
        return False
    return True
