"""What the OpenAPI document allows is answered as it says, and what it does not is refused as it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.whole import Whole

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


_CHANCE = ["--seed", os.environ["SEED"]] if "SEED" in os.environ else ["--generation-deterministic"]


def fuzz(gateway: Whole, folder: Path, examples: int, *, key: str, phases: str = "examples,coverage,fuzzing") -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{gateway.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--header", "Request-Timeout-Ms: 30000",  # 1 ms is 504
        "--checks", ",".join(CHECKS), "--max-examples", str(examples),
        "--phases", phases, *_CHANCE, "--no-color", "--workers", "1",
        "--suppress-health-check", "all",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_a_few_requests_of_each_kind(gateway: Whole, tmp_path: Path) -> None:
    fuzz(gateway, tmp_path, 3, key=gateway.key("labels:*", "vectors:*"), phases="examples,fuzzing")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_requests_of_each_kind(gateway: Whole, tmp_path: Path) -> None:
    """EXAMPLES=2000 in the environment takes some ten minutes; SEED=1 takes others."""
    fuzz(gateway, tmp_path, int(os.environ.get("EXAMPLES", "200")), key=gateway.admin())
