"""A release of the default family that takes no training: the models that git has, around a network of its shape.

The network has the demo's layers with seeded random weights, so that it costs what the demo's does; what it says of an
image means nothing, and is checked all the same.
"""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import MeasurementError
from contracts import golden, layout, model_config
from contracts.golden import GoldenRequest

MODEL = layout.DEFAULT_FAMILY
_NETWORK = f"{MODEL}_classifier"
_REQUESTS = 32
_SIDE, _CLASSES = 28, 10
_BLOCKS = ((16, 16, 1), (16, 32, 2), (32, 64, 2))  # channels before and after, stride
_TOLERANCE = 1e-4


def write(models: Path, repository: Path) -> None:
    """Write the stand-in into the new folder `repository`.

    Args:
        models: The folder `model_repository` of a checkout, of whichever commit.

    Raises:
        MeasurementError: the family is not there.
    """
    ensemble = models / MODEL / model_config.FILE_NAME
    if not ensemble.is_file():
        raise MeasurementError(f"{models} has no {MODEL}", hint="name the root of a checkout of this project")
    for name in (MODEL, *model_config.steps(model_config.read(ensemble))):
        released = [] if name != _NETWORK else [path.name for path in (models / name).glob("[0-9]*")]
        shutil.copytree(models / name, repository / name, ignore=_left_out(*released))
    version = repository / _NETWORK / "1"
    version.mkdir()
    _write_graph(version / "model.onnx")
    labels = (repository / f"{MODEL}_postprocess" / "labels.txt").read_text().splitlines()
    golden.write(_requests(version / "model.onnx", labels), version)


def _left_out(*names: str) -> Any:
    return shutil.ignore_patterns(".*", "__pycache__", *names)


def _requests(graph: Path, labels: list[str]) -> list[GoldenRequest]:
    import onnxruntime as ort

    session, found = ort.InferenceSession(graph, providers=["CPUExecutionProvider"]), []
    for number in range(_REQUESTS):
        pixels = _image(number)
        [[probabilities]] = session.run(["probabilities"], {"pixels": pixels[None, None]})
        best = int(np.argmax(probabilities))
        answers = {
            "label": np.array([[labels[best].encode()]], np.object_),
            "score": np.array([[probabilities[best]]], np.float32),
        }
        inputs = {"image": np.array([[_png(pixels)]], np.object_)}
        found.append(GoldenRequest(MODEL, inputs, answers, {"score": _TOLERANCE}))
    return found


def _image(number: int) -> NDArray[np.uint8]:
    """Draw a blot with some noise: about as many bytes as a photograph of a shoe."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:_SIDE, :_SIDE]
    centre, width = random.uniform(9, 19, 2), random.uniform(4, 8, 2)
    blot = 255 * np.exp(-(((y - centre[0]) / width[0]) ** 2) - ((x - centre[1]) / width[1]) ** 2)
    noisy = blot + (blot > 25) * random.normal(0, 12, blot.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _write_graph(path: Path) -> None:
    """Write a small residual network, as the demo's preset trains it: 16, 32 and 64 channels."""
    import onnx
    from onnx import TensorProto, helper

    made = _Graph()
    made.add("Cast", ["pixels"], "as_float", to=TensorProto.FLOAT)
    made.add("Mul", ["as_float", made.constant("scale", np.array(2 / 255, np.float32))], "scaled")
    tensor = made.conv("scaled", 1, 16, 3, 1, relu=True)
    for before, after, stride in _BLOCKS:
        around = tensor if before == after else made.conv(tensor, before, after, 1, stride)
        inside = made.conv(made.conv(tensor, before, after, 3, stride, relu=True), after, after, 3, 1)
        tensor = made.add("Relu", [made.add("Add", [inside, around])])
    pooled = made.add("ReduceMean", [tensor, made.constant("over", np.array([2, 3]))], keepdims=0)
    weights = [made.weights((_CLASSES, 64)), made.weights((_CLASSES,))]
    made.add("Gemm", [pooled, *weights], "logits", transB=1)
    made.add("Softmax", ["logits"], "probabilities", axis=-1)
    image = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["b", 1, _SIDE, _SIDE])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", _CLASSES]) for name in ("logits", "probabilities")
    ]
    graph = helper.make_graph(made.nodes, "stand_in", [image], outputs, made.constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


class _Graph:
    """Nodes and weights, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._random = np.random.default_rng(0)

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def weights(self, shape: tuple[int, ...]) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        values = self._random.normal(0, fan_in**-0.5, shape).astype(np.float32)
        return self.constant(f"w{len(self.constants)}", values)

    def conv(self, tensor: str, before: int, after: int, size: int, stride: int, *, relu: bool = False) -> str:
        weights = [self.weights((after, before, size, size)), self.weights((after,))]
        made = self.add("Conv", [tensor, *weights], pads=[size // 2] * 4, strides=[stride] * 2)
        return self.add("Relu", [made]) if relu else made
