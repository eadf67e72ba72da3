"""NVIDIA's ModelOpt AutoCast: 16 bits from FP32, but for nodes whose weights or values leave the range.

It takes no float types but FP32 from outside, fails in its own many ways on graphs that it does not know, and tells in
its log alone which nodes it keeps, and why a conversion failed.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from contracts.samples import Batch, save_arrays
from export import graphs
from export.errors import GraphError

Low = Literal["fp16", "bf16"]

_MAX = float(np.finfo(np.float16).max)
# Half of float16's range: real traffic goes further than the samples that were looked at.
_HEADROOM = 0.5


def converted(
    fp32: Path, samples: Sequence[Batch], keep: Iterable[str], low: Low = "fp16"
) -> tuple[ModelProto, dict[str, str]]:
    """Convert a graph to FP16 or BF16; return it, and {node that stays in FP32: why}.

    Args:
        samples: What the range of every value is looked at on, in batches as the graph takes them.
        keep: Nodes that stay in FP32 whatever their range.

    Raises:
        GraphError: it could not.
    """
    from modelopt.onnx.autocast import convert_to_mixed_precision

    model, border = graphs.float32_border(graphs.load(fp32))  # it takes no other float types
    with TemporaryDirectory() as scratch, _listening() as heard:
        data = Path(scratch, "data")
        data.mkdir()
        for number, batch in enumerate(samples):
            given = {name: values.astype(np.float32) if name in border else values for name, values in batch.items()}
            save_arrays(data / f"{number:06d}.npz", given)
        onnx.save(model, Path(scratch, fp32.name))
        try:
            with chdir(scratch):  # onnxruntime's shape inference leaves a dump where it is, if it is at its end
                half = convert_to_mixed_precision(
                    str(Path(scratch, fp32.name)),
                    low_precision_type=low,
                    nodes_to_exclude=[f"^{re.escape(name)}$" for name in keep],
                    data_max=_MAX * _HEADROOM if low == "fp16" else np.inf,
                    init_max=_MAX if low == "fp16" else np.inf,
                    keep_io_types=True,
                    calibration_data=str(data),
                    providers=["cpu"],
                )
        except Exception as error:  # it fails in its own many ways on graphs that it does not know
            raise GraphError(
                f"ModelOpt could not convert {fp32.name} to {low.upper()}",
                note="; ".join([_reason(error, model), *heard.errors[:1]]),
            ) from error
    _without_empty_scales(half)
    half = graphs.with_border(half, border)
    return half, {name: _told(reason) for name, reason in heard.kept.items() if "Regex" not in reason}


def _without_empty_scales(half: ModelProto) -> None:
    """Let no scale of a Q/DQ pair be 0 in float16, as that of a channel without weights is: TensorRT refuses it."""
    pairs = [node for node in half.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {node.input[1] for node in pairs}
    for tensor in half.graph.initializer:
        if tensor.name in scales and tensor.data_type == TensorProto.FLOAT16:
            values = np.maximum(numpy_helper.to_array(tensor), np.finfo(np.float16).smallest_subnormal)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@dataclass(frozen=True)
class _Heard:
    """What ModelOpt's log says."""

    kept: dict[str, str]  # {node: why it stays in FP32}
    errors: list[str]  # why a conversion failed: the exception itself is "Sanity Check Failed"


@contextmanager
def _listening() -> Iterator[_Heard]:
    """Collect what ModelOpt's log says, the only place that does; nobody else has to read it."""
    heard = _Heard({}, [])

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if match := re.match(r"Skipping node (.+?): (.+)", record.getMessage()):
                heard.kept[match[1]] = match[2]
            elif record.levelno >= logging.ERROR:
                heard.errors.append(record.getMessage().partition("\n")[0])

    import modelopt.onnx.autocast  # its loggers are made, with handlers on stdout, when it is imported

    names = [name for name in logging.root.manager.loggerDict if name.startswith(modelopt.onnx.__name__)]
    loggers = [logging.root, *(logging.getLogger(name) for name in names)]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [Listener()], False
    for logger in loggers[1:]:
        logger.setLevel(logging.INFO)
    try:
        yield heard
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


def _told(reason: str) -> str:
    """Shorten ModelOpt's reason."""
    if match := re.search(r"absmax=([\d.e+]+|inf)", reason):
        return f"reaches {float(match[1]):,.0f}, float16 ends at {_MAX:,.0f}"
    return reason


def _reason(error: Exception, model: ModelProto) -> str:
    """Say why it failed: of operators that are not ONNX's own it asks TensorRT's bindings, where there are any."""
    if isinstance(error, NameError) and "'trt'" in str(error):
        strange = {f"{node.op_type} ({node.domain})" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
        return f"it takes none but ONNX's own operators, and not {', '.join(sorted(strange))}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
