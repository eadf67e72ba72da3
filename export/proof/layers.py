"""What layers compute in: as TensorRT's network has it before it fuses them, and as the engine has it after.

Both count convolutions and matrix products. The network's is what was asked for and is known without a GPU; it is what
gates hold to. The engine's is what runs: a layer there takes in what was fused before it, such as the uint8 of a
prologue, so that its first input says less than it seems to, and is reported.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any


def dtype_share(network: Any, trt: ModuleType) -> Mapping[str, float]:
    """Return the share of convolution and matrix-multiply layers in each dtype, before TensorRT fuses them.

    A layer whose both operands are dequantized computes in the quantized dtype: TensorRT fuses the pairs into it.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producer = {layer.get_output(o).name: layer for layer in layers for o in range(layer.num_outputs)}
    heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)

    def computed_in(layer: Any) -> str:
        # A convolution has its weights as an input where they are computed, as dequantized ones are.
        operands = [layer.get_input(i) for i in range(min(layer.num_inputs, 2))]
        sources = [producer[o.name] for o in operands if o is not None and o.name in producer]
        if len(sources) == 2 and all(source.type == trt.LayerType.DEQUANTIZE for source in sources):
            return str(sources[0].get_input(0).dtype).removeprefix("DataType.")
        return str(operands[0].dtype).removeprefix("DataType.")

    return _share(Counter(computed_in(layer) for layer in layers if layer.type in heavy))


def inspected_share(information: str, heavy: Collection[str]) -> Mapping[str, float]:
    """Return the same share by what the engine inspector says of the built engine; empty if it names too few layers.

    TensorRT fuses: an engine layer says in its metadata which ONNX layers it came from.

    Args:
        information: The inspector's JSON, from an engine built with detailed profiling verbosity.
        heavy: The ONNX names of the layers that count.
    """
    names = {"int8": "INT8", "fp8": "FP8", "half": "HALF", "fp16": "HALF", "bf16": "BF16", "bfloat16": "BF16"}
    names |= {"float": "FLOAT", "fp32": "FLOAT"}
    counts: Counter[str] = Counter()
    for layer in json.loads(information).get("Layers", []):
        # Without detailed verbosity: names alone. A reformatting layer is named after the one that it copies for.
        if not isinstance(layer, dict) or layer.get("LayerType") == "Reformat":
            continue
        said = f"{layer.get('Name', '')} {layer.get('Metadata', '')}"
        made_of = [name for name in heavy if re.search(rf"(?<![\w./]){re.escape(name)}(?![\w./])", said)]
        dtype = re.search(rf"\b({'|'.join(names)})\b", _datatype((layer.get("Inputs") or [{}])[0]).lower())
        if dtype:
            counts[names[dtype[0]]] += len(made_of)
    return _share(counts) if counts.total() * 2 >= len(heavy) and heavy else {}


def _share(counts: "Counter[str]") -> Mapping[str, float]:
    return {dtype: round(count / counts.total(), 4) for dtype, count in counts.most_common() if count}


def _datatype(tensor: Mapping[str, Any]) -> str:
    """Return what TensorRT 11 has in "DataType"; 10 had it in "Format/Datatype", as "Row major linear FP16 format"."""
    return next((str(value) for key, value in tensor.items() if key.lower().endswith("datatype")), "")
