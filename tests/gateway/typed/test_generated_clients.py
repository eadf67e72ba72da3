"""Clients that are generated from the OpenAPI document work: openapi-python-client's and openapi-typescript's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.whole import Whole

pytestmark = pytest.mark.slow

USING_PYTHON = """
import sys
from models_client import AuthenticatedClient
from models_client.api.ferries import predict_ferries
from models_client.api.labels import classify_labels
from models_client.api.models import list_models
from models_client.models import FerriesByEntities, FerriesEntities, FerriesRows, FerriesEntitiesPier, Problem
from models_client.types import File
import io

url, key = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=key) as client:
    ferry = FerriesEntities(line="A", pier=FerriesEntitiesPier("North"), departure="2013-11-03T08:30", passengers=7)
    answer = predict_ferries.sync(client=client, body=FerriesByEntities(entities=[ferry]))
    assert isinstance(answer, FerriesRows), answer
    assert answer.rows[0].minutes == 11.0 and answer.version == "2" and answer.defaults == [["tonnes"]]
    wrong = FerriesEntities(line="", pier=FerriesEntitiesPier("North"), departure="soon")
    answer = predict_ferries.sync(client=client, body=FerriesByEntities(entities=[wrong]))
    assert isinstance(answer, Problem) and answer.status == 422, answer
    answer = classify_labels.sync(client=client, body=File(payload=io.BytesIO(b"boot")))
    assert answer.predictions[0].label == "boot", answer
"""
USING_TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const [url, key] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });
const ferry = { line: "A", pier: "North" as const, departure: "2013-11-03T08:30", passengers: 7 };
const { data, error } = await client.POST("/v1/models/ferries/predict", { body: { entities: [ferry] } });
if (!data || !("rows" in data)) throw new Error(JSON.stringify(error ?? data));
const minutes: number | null | undefined = data.rows[0].minutes;
if (minutes !== 11) throw new Error(`minutes: ${minutes}`);
const refused = await client.POST("/v1/models/vectors/embed", { body: { texts: [] } });
if (refused.error?.status !== 422) throw new Error(JSON.stringify(refused));
console.log("answered", data.version);
"""
WRONG_TYPESCRIPT = USING_TYPESCRIPT.replace('pier: "North" as const', 'pier: "West" as const')
TSC = ("npx", "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")


def run(*command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=500)


def must(*command: str, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def document(gateway: Whole, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_bytes(gateway.ask("GET", "/openapi.json").body)
    return path


def test_a_python_client(gateway: Whole, document: Path, tmp_path: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    must(uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    must(uv, "pip", "install", "--quiet", "--python", python, "openapi-python-client", cwd=tmp_path)
    generator = str(tmp_path / "venv" / "bin" / "openapi-python-client")
    said = must(
        generator, "generate", "--path", str(document), "--meta", "none", "--output-path", "models_client", cwd=tmp_path
    )
    assert "could not be processed" not in said and "WARNING" not in said.upper(), said
    (tmp_path / "use.py").write_text(USING_PYTHON)
    must(python, "use.py", gateway.url, gateway.admin(), cwd=tmp_path)


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_typescript_client(gateway: Whole, document: Path, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    packages = ("openapi-typescript", "openapi-fetch", "typescript@5", "@types/node")
    must("npm", "install", "--no-audit", "--no-fund", "--silent", *packages, cwd=tmp_path)
    must("npx", "openapi-typescript", str(document), "--output", "schema.d.ts", cwd=tmp_path)
    (tmp_path / "use.ts").write_text(USING_TYPESCRIPT.replace("./schema", "./schema.js"))
    must(*TSC, "use.ts", cwd=tmp_path)
    assert must("node", "use.js", gateway.url, gateway.admin(), cwd=tmp_path) == "answered 2\n"
    (tmp_path / "wrong.ts").write_text(WRONG_TYPESCRIPT.replace("./schema", "./schema.js"))
    refused = run(*TSC, "--noEmit", "wrong.ts", cwd=tmp_path)
    assert refused.returncode and '"West"' in refused.stdout  # the values of an entity are types
