"""ONNX graphs as the export reads and changes them. Every node has a name that a person can place.

The nodes of a checkpoint's graph are named after its modules ("network.2.first.0/Conv"), those of a graph
brought from elsewhere keep their names. Later steps, TensorRT's layers and the report use these names.
"""

from export.graphs.file import copy, digest, load, require_whole, save, size_bytes
from export.graphs.float32 import float32_border, in_float32, with_border
from export.graphs.normal import as_runtimes_take_it, normalise
from export.graphs.structure import (
    HEAVY,
    border_nodes,
    heavy_nodes,
    inferred,
    io_tensors,
    pinned,
    random_nodes,
    settled,
    subgraphs,
    tensor_types,
    with_outputs,
    without_dead_nodes,
)

__all__ = [
    "HEAVY",
    "as_runtimes_take_it",
    "border_nodes",
    "copy",
    "digest",
    "float32_border",
    "heavy_nodes",
    "in_float32",
    "inferred",
    "io_tensors",
    "load",
    "normalise",
    "pinned",
    "random_nodes",
    "require_whole",
    "save",
    "settled",
    "size_bytes",
    "subgraphs",
    "tensor_types",
    "with_border",
    "with_outputs",
    "without_dead_nodes",
]
