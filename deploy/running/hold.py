"""A model that cannot be loaded: while Triton has it in mind, `/v2/health/ready` is false.

Between two loads Triton calls itself ready, as if there were no more to come. So a server that shall load some models
after its start begins with this one, too, and is made to forget it when they are done.
"""

import shutil
from pathlib import Path

NAME = "more_models_to_load"
_CONFIG = f"""
name: "{NAME}"
backend: "none"
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""


def put(repository: Path) -> None:
    """Put it into a repository of ours."""
    version = repository / NAME / "1"
    version.mkdir(parents=True)
    config = version.parent / "config.pbtxt"
    config.write_text(_CONFIG)
    for path, mode in ((version.parent, 0o755), (version, 0o755), (config, 0o644)):
        path.chmod(mode)  # whatever our umask: the server may run as another user


def remove(repository: Path) -> None:
    """Take it out again."""
    shutil.rmtree(repository / NAME, ignore_errors=True)
