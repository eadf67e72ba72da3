"""A server of its own for a benchmark, with models that are made for it."""

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
def serving(models: Mapping[str, tuple[str, str]]) -> Iterator[Running]:
    """Triton with these models, each a config.pbtxt and a model.py, for as long as the block runs.

    Raises:
        DeployError: as `deploy.running.server.serving`.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        Path(scratch).chmod(0o755)  # root's server becomes nobody
        for name, (config, code) in models.items():
            version = Path(scratch, "model_repository", name, "1")
            version.mkdir(parents=True)
            (version.parent / "config.pbtxt").write_text(config)
            (version / "model.py").write_text(code)
        http, grpc, metrics = free_ports()
        settings = Settings(version.parent.parent, http_port=http, grpc_port=grpc, metrics_port=metrics)
        with server.serving(settings, say=lambda line: None) as up:
            yield up
