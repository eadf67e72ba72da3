"""The house rules that no single module can show."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from tests.tracked import MODEL_REPOSITORY, tracked, tracked_models
from training.families import FAMILIES

# Who may import whom. demo.py stands on top of everything and is imported by nobody.
ARROWS = {
    "cli": set(),
    "contracts": set(),
    "training": {"cli", "contracts"},
    "export": {"cli", "training", "contracts"},
    "deploy": {"cli", "contracts"},
    "clients": {"cli", "contracts"},
    "store": {"cli", "contracts"},
    "gateway": {"cli", "clients", "store", "contracts"},
    "benchmarks": {"cli", "clients", "deploy", "export", "store", "contracts"},
    "examples": {"cli", "contracts"},
}
RUNS_IN_TRITON = [*tracked_models("*/*/*.py"), *(layout.ROOT / "deploy" / "backends").rglob("*.py")]
# Beside what lies in the same folder; `python_based` is what our own backends share.
ALLOWED_IN_TRITON = {
    *("numpy", "PIL", "tokenizers", "onnxruntime", "tensorrt", "cuda"),
    *("triton_python_backend_utils", "python_based", "ort_session", "one_process"),
}


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports, at any depth of it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which package is meant"
            found.add((node.module or "").partition(".")[0])
    return found


def ours() -> list[Path]:
    """Every file that is or may soon be committed; of the model repository, where exports write, what git has."""
    return [p for p in tracked(others=True) if MODEL_REPOSITORY not in p.parents or p in tracked("model_repository")]


@pytest.mark.parametrize("package", ARROWS)
def test_imports_follow_the_arrows(package: str) -> None:
    files = [p for p in (layout.ROOT / package).rglob("*.py") if p not in RUNS_IN_TRITON]
    assert files
    for path in files:
        stray = imported(path) & ({*ARROWS, "demo", "tests"} - ARROWS[package] - {package})
        assert not stray, f"{path.relative_to(layout.ROOT)} must not import {stray}"


def test_contracts_import_the_standard_library_what_computes_metrics_and_what_reads_configurations_and_keys() -> None:
    reads = {
        "model_config.py": {"google", "tritonclient"},
        "signing.py": {"cryptography"},
        "certificates.py": {"cryptography", "OpenSSL"},
    }
    for path in (layout.ROOT / "contracts").rglob("*.py"):
        allowed = {*sys.stdlib_module_names, "contracts", "numpy", "scipy", *reads.get(path.name, ())}
        assert imported(path) <= allowed, path


def test_what_runs_in_triton_imports_nothing_of_ours() -> None:
    assert len(RUNS_IN_TRITON) >= 3
    for path in RUNS_IN_TRITON:
        beside = {module.stem for module in path.parent.glob("*.py")}
        assert imported(path) <= {*sys.stdlib_module_names, *ALLOWED_IN_TRITON, *beside}, path


def test_every_family_folder_is_listed_and_has_the_same_files() -> None:
    folders = {p.parent.name for p in (layout.ROOT / "training" / "families").glob("*/spec.py")}
    assert folders == set(FAMILIES)
    for family in folders:
        names = {p.name for p in (layout.ROOT / "training" / "families" / family).iterdir()}
        assert names >= {"__init__.py", "data.py", "model.py", "spec.py", "examples.py", "config.yaml", "README.md"}


def test_no_placeholder_is_left_in_what_people_read() -> None:
    for path in ours():
        assert path.suffix != ".md" or "@@" not in path.read_text(), path


def test_nothing_names_a_package_registry_host() -> None:
    host = re.compile(r"pypi\.org|pythonhosted|npmjs|deb\.debian\.org|pytorch\.org/whl|pypi\.nvidia", re.IGNORECASE)
    for path in ours():
        if path != Path(__file__) and (text := _text(path)):
            assert not host.search(text), f"{path} names a package registry's host"


def test_no_weights_data_or_stores_are_tracked() -> None:
    forbidden = {".ckpt", ".onnx", ".plan", ".engine", ".db", ".gz", ".pt", ".safetensors"}
    for path in ours():
        assert path.suffix not in forbidden, path
        assert path.stat().st_size < 1_000_000, path


@pytest.mark.parametrize("command", ["training", "export", "deploy", "clients", "store", "gateway", "benchmarks"])
def test_help_answers_without_importing_what_is_slow(command: str) -> None:
    """`--help` in under half a second: not by a stopwatch, which a busy machine fails, but by what is loaded."""
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        f"try: runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'mlflow', 'pytorch_lightning', 'onnx', 'onnxruntime', 'tensorrt_rtx', 'matplotlib',"
        " 'tritonclient.grpc', 'tritonclient.http', 'sqlalchemy', 'alembic'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=layout.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python -m {command}" in done.stdout


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return None
