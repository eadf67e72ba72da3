"""A version to sign, and keys."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.contracts.signers import key_pair, write_version


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """An unsigned version."""
    return write_version(tmp_path / "1")
