"""INT8 and FP8 graphs: explicit quantization, a QuantizeLinear/DequantizeLinear (Q/DQ) pair wherever 8 bits are meant.

Two quantizers make them: NVIDIA's ModelOpt, which places the pairs as TensorRT fuses them, and onnxruntime's.
Both are asked for what TensorRT accepts: signed, symmetric (zero-point 0), weights per channel, biases left.
"""

import contextlib
import io
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.shape_inference import infer_shapes

from contracts.manifest import Recipe
from contracts.samples import Batch, Split
from contracts.spec import Precision
from export import graphs
from export.errors import GraphError

_CALIBRATION_BATCH = 32
_PERCENTILE = 99.99

# What a search tries, and what an export without one uses: the first. onnxruntime's entropy is not among them: its
# 128 bins for 128 levels leave no threshold to search, so it is "minmax" to the last digit, and with 2,048 bins it
# cost a classifier of small images 1.2 points.
METHODS = (
    ("modelopt", "entropy"),
    ("modelopt", "max"),
    ("onnxruntime", "percentile"),
    ("onnxruntime", "minmax"),
)
# FP8 (E4M3) has the range for outliers: the largest value decides. Ada, Hopper and Blackwell compute in it.
FP8_METHODS = (("modelopt", "max"), ("modelopt", "entropy"))
_ELEMENTS: Mapping[Precision, int] = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


def quantize(fp32: Path, int8: Path, calibration: Split, recipe: Recipe, *, batched: bool = True) -> Path:
    """Write the Q/DQ graph of `fp32` to `int8`, its activation ranges from the first `recipe.samples` samples.

    Every heavy layer is quantized; `leave_out` takes layers back out.

    Raises:
        GraphError: the quantizer failed.
    """
    samples = calibration.first(recipe.samples)
    make: Callable[..., None] = _with_onnxruntime
    if recipe.quantizer == "modelopt":
        make = partial(_with_modelopt, recipe.precision)
    model = graphs.load(fp32)
    graphs.require_whole(model, recipe.precision.upper())
    try:
        with _silence():
            make(fp32, int8, samples, recipe.method, batched)
        onnx.save(graphs.settled(onnx.load(int8), model), int8)
    # The quantizers fail in their own many ways on graphs they do not know; to the user it is one.
    except Exception as error:
        if not graphs.heavy_nodes(model):
            raise GraphError(
                f"there is nothing to compute in {recipe.precision.upper()}: no convolution, and no matrix product"
            ) from error
        raise GraphError(
            f"{recipe.quantizer} could not quantize {fp32.name}",
            note=(str(error).strip() or type(error).__name__).splitlines()[0],
        ) from error
    return int8


def leave_out(quantized: ModelProto, fp32: ModelProto, layers: Collection[str]) -> ModelProto:
    """Copy `quantized` and let `layers` of the copy compute in FP32 again, as in the graph it was made from."""
    model = ModelProto()
    model.CopyFrom(quantized)
    weights = {f"{i.name}/fp32": _renamed(i, f"{i.name}/fp32") for i in fp32.graph.initializer}
    originals = {node.name: list(node.input) for node in fp32.graph.node}
    pairs = _pairs(model)
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.name in layers else ()):
            if name in pairs:
                original = originals[node.name][index]
                # The quantized graph may have the weight in 8 bits under its name.
                node.input[index] = f"{original}/fp32" if f"{original}/fp32" in weights else pairs[name]
    _bypass_idle_pairs(model, pairs, set(graphs.heavy_nodes(model)) - set(layers))
    for name in sorted({name for node in model.graph.node for name in node.input} & weights.keys()):
        model.graph.initializer.append(weights[name])
    return graphs.inferred(graphs.without_dead_nodes(model))


def _pairs(model: ModelProto) -> dict[str, str]:
    """Return {what a DequantizeLinear gives: what its QuantizeLinear was given, or the 8-bit weight itself}."""
    quantizers = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return {
        node.output[0]: quantizers[node.input[0]].input[0] if node.input[0] in quantizers else node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }


def _bypass_idle_pairs(model: ModelProto, pairs: dict[str, str], quantized: set[str]) -> None:
    """Let everybody read past the pairs that no `quantized` layer reads from or writes to."""
    producer = {output: node for node in model.graph.node for output in node.output}
    busy = {name for node in model.graph.node if node.name in quantized for name in node.input}
    idle = {
        given: source
        for given, source in pairs.items()
        if given not in busy and source in producer and producer[source].name not in quantized
    }
    # A graph output cannot be renamed: there, the layer gives the output itself.
    outputs = {idle[output.name]: output.name for output in model.graph.output if output.name in idle}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in outputs.values():
            node.output[0] += "/idle"
            continue
        for index, name in enumerate(node.input):
            node.input[index] = outputs.get(idle.get(name, name), idle.get(name, name))
        for index, name in enumerate(node.output):
            node.output[index] = outputs.get(name, name)


def quantized_layers(model: ModelProto) -> list[str]:
    """List the heavy layers that read 8 bits; the quantizers leave some in FP32 by themselves."""
    pairs = _pairs(model)
    return [node.name for node in model.graph.node if node.op_type in graphs.HEAVY and node.input[0] in pairs]


def qdq_faults(model: ModelProto, precision: Precision = "int8") -> list[str]:
    """List what TensorRT would misread or refuse: Q/DQ that are not signed 8-bit, or FP8, with zero-point 0."""
    constants = {i.name: i for i in model.graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero_point is None:  # the standard's default is UINT8, zero-point 0
            found.append(f"{node.name}: UINT8 (no zero-point given)")
        elif zero_point.data_type != _ELEMENTS[precision]:
            found.append(f"{node.name}: {TensorProto.DataType.Name(zero_point.data_type)}")
        elif numpy_helper.to_array(zero_point).astype(np.float32).any():
            found.append(f"{node.name}: zero-point {numpy_helper.to_array(zero_point).ravel()[0]}")
    return found


def _with_modelopt(precision: Precision, fp32: Path, int8: Path, samples: Split, method: str, batched: bool) -> None:
    from modelopt.onnx.quantization import quantize
    from onnxruntime import quantization as q

    model, made = graphs.load(fp32), int8.resolve()
    with TemporaryDirectory() as scratch:
        # A copy: it writes its intermediate files beside the graph it is given, and onnxruntime where it is.
        given = shutil.copy(fp32, scratch)
        with contextlib.chdir(scratch):
            quantize(
                str(given),
                quantize_mode=precision,
                calibration_data_reader=_reader(q, samples.batches(1 if batched else 0)),
                calibration_method=method,
                calibration_eps=["cpu"],
                # 8 bits where the arithmetic is. Its default also takes Mul, Clip, pooling and constants: on graphs
                # other than plain CNNs that cost accuracy (0.95 agreement instead of 0.99) and was refused by TensorRT.
                op_types_to_quantize=_heavy_types(model),
                high_precision_dtype="fp32",  # one graph for the CPU and the GPU
                dq_only=True,  # weights stored in 8 bits: a quarter of the file
                output_path=str(made),
                log_level="ERROR",
            )


def _with_onnxruntime(fp32: Path, int8: Path, samples: Split, method: str, batched: bool) -> None:
    # In a process of its own: ModelOpt, once it has run, leaves onnxruntime's calibrators patched.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(_quantize_static, fp32, int8, samples, method, batched).result()


def _quantize_static(fp32: Path, int8: Path, samples: Split, method: str, batched: bool) -> None:
    with _silence():
        _quantize_with_onnxruntime(fp32, int8, samples, method, batched)


def _quantize_with_onnxruntime(fp32: Path, int8: Path, samples: Split, method: str, batched: bool) -> None:
    from onnxruntime import quantization as q
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = infer_shapes(graphs.load(fp32))  # only tensors whose type is known are observed
    ops = _heavy_types(model)
    with TemporaryDirectory() as scratch:
        onnx.save(model, Path(scratch) / "typed.onnx")
        calibrator = create_calibrator(
            Path(scratch) / "typed.onnx",
            ops,
            augmented_model_path=str(Path(scratch) / "augmented.onnx"),
            calibrate_method=getattr(q.CalibrationMethod, {"minmax": "MinMax", "percentile": "Percentile"}[method]),
            extra_options={"percentile": _PERCENTILE},
        )
        calibrator.set_execution_providers(["CPUExecutionProvider"])
        for batch in samples.batches(_CALIBRATION_BATCH if batched else 0):
            # One batch a call: it holds every tensor of all that it is given at once.
            calibrator.collect_data(_reader(q, [batch]))
        ranges = calibrator.compute_data()
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=q.QuantType.QInt8,
        activation_qType=q.QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=ops,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            # An INT32 DequantizeLinear is a parse error in TensorRT; onnxruntime fuses without it.
            "QuantizeBias": False,
        },
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(int8), use_external_data_format=False)


def _renamed(tensor: TensorProto, name: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _heavy_types(model: ModelProto) -> list[str]:
    return sorted(graphs.HEAVY & {node.op_type for node in model.graph.node})


def _reader(q: Any, batches: Iterable[Batch]) -> Any:
    class Reader(q.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            self.batches = [dict(batch) for batch in batches]
            self.rewind()

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.left, None)

        def get_first(self) -> dict[str, NDArray[Any]]:  # ModelOpt looks at one for its shapes
            return self.batches[0]

        def rewind(self) -> None:
            self.left = iter(self.batches)

    return Reader()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizers quiet: they print their progress, and advise on the root logger."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.getLogger().setLevel(level)
