"""Triton's model configurations, as the export reads them."""

from pathlib import Path
from typing import Any

from contracts import layout
from export.errors import ConfigError


def read(path: Path) -> Any:
    """Read a config.pbtxt: a ModelConfig of Triton's.

    Raises:
        ConfigError: it is missing, or is none.
    """
    try:
        return parse(path.read_bytes(), layout.shown(path))
    except FileNotFoundError:
        raise ConfigError(
            f"{layout.shown(path)} does not exist", hint="every model needs one for the GPU and one for the CPU"
        ) from None


def parse(content: bytes, name: str) -> Any:
    """Read the content of one.

    Args:
        name: What an error calls it.

    Raises:
        ConfigError: it is none.
    """
    from google.protobuf import text_format  # with gRPC, 0.3 s to import
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(content.decode(), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is no model configuration", note=str(error)) from error
