"""Every precision variant of a network, as an ONNX graph whose types say what will be computed.

INT8 is explicit quantization, a QuantizeLinear/DequantizeLinear pair around every tensor to be computed in
8 bits: per-channel for weights, symmetric (zero-point 0) throughout, because TensorRT accepts nothing else.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from contracts.spec import ModelSpec, Precision
from export.errors import GraphError
from export.onnx import graph_from_module

_CALIBRATION_BATCH = 32


def variant_graph(
    precision: Precision,
    module: pl.LightningModule,
    spec: ModelSpec,
    calibration: NDArray[Any],
    directory: Path,
) -> Path:
    """Write `<directory>/<precision>.onnx`.

    Args:
        calibration: Real training inputs [N, …], as the network gets them; used by "int8" alone.

    Raises:
        GraphError: the graph could not be made.
    """
    path = directory / f"{precision}.onnx"
    if precision != "int8":
        return graph_from_module(module, spec, precision, path)
    fp32 = directory / "fp32.onnx"
    if not fp32.exists():
        graph_from_module(module, spec, "fp32", fp32)
    return quantize(fp32, path, spec.inputs[0].name, calibration)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The quantizer prints its progress and advises on the root logger."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.getLogger().setLevel(level)


def quantize(fp32: Path, int8: Path, input_name: str, calibration: NDArray[Any], leave: Sequence[str] = ()) -> Path:
    """Write the Q/DQ graph of `fp32` to `int8`, activation ranges by the entropy of real inputs.

    Args:
        calibration: Inputs [N, …] as the network gets them.
        leave: Names of nodes to keep in float32.

    Raises:
        GraphError: the quantizer failed.
    """
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        batches: Iterator[NDArray[Any]] = iter(
            np.array_split(calibration, max(1, len(calibration) // _CALIBRATION_BATCH))
        )

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {input_name: batch}

    try:
        with _silence():
            q.quantize_static(
                fp32,
                int8,
                Reader(),
                quant_format=q.QuantFormat.QDQ,
                activation_type=q.QuantType.QInt8,
                weight_type=q.QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=list(leave),
                calibrate_method=q.CalibrationMethod.Entropy,
                # Add too: a residual sum of one 8-bit and one 32-bit branch breaks TensorRT's fusion.
                op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    # An INT32 DequantizeLinear is a parse error in TensorRT; onnxruntime fuses without it.
                    "QuantizeBias": False,
                },
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise GraphError(f"could not quantize {fp32.name}", note=str(error).splitlines()[0]) from error
    return int8
