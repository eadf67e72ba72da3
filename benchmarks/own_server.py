"""A server of a benchmark's own, over a model repository that is made for it and removed again."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.running import server
from deploy.triton.ports import free_ports
from deploy.triton.settings import Settings
from deploy.triton.state import Running

# Of a Python model with one input and one output of FP32.
CONFIG = """
backend: "python"
max_batch_size: 0
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
"""


@contextmanager
def scratch_repository() -> Iterator[Path]:
    """Find a place for a model repository, which is removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        Path(scratch).chmod(0o755)  # root's server becomes somebody else
        yield Path(scratch) / "model_repository"


@contextmanager
def serving(
    repository: Path, cache_bytes: int = 0, http_max_bytes: int | None = None, *, ensembles: bool = False
) -> Iterator[Running]:
    """Run Triton over `repository`, on free ports, for as long as the block runs.

    Args:
        ensembles: Each step of an ensemble is a model of its own, on a CPU, too.

    Raises:
        DeployError, ManifestError: as `deploy.running.server.serving`.
    """
    http, grpc, metrics = free_ports()
    settings = Settings(
        repository,
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        cache_bytes=cache_bytes,
        http_max_bytes=http_max_bytes,
        ensembles=ensembles,
    )
    with server.serving(settings, say=lambda line: None) as up:
        yield up


@contextmanager
def serving_python_models(
    models: Mapping[str, tuple[str, str]], http_max_bytes: int | None = None
) -> Iterator[Running]:
    """Run Triton with these models, each a config.pbtxt and a model.py, for as long as the block runs.

    Args:
        http_max_bytes: As of `deploy.triton.settings.Settings`.

    Raises:
        DeployError: as `deploy.running.server.serving`.
    """
    with scratch_repository() as repository:
        for name, (config, code) in models.items():
            version = repository / name / "1"
            version.mkdir(parents=True)
            (version.parent / "config.pbtxt").write_text(config)
            (version / "model.py").write_text(code)
        with serving(repository, http_max_bytes=http_max_bytes) as up:
            yield up
