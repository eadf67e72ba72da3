"""NVIDIA's Python bindings of the server's TensorRT have all that we use of them, though nothing of it runs here.

The bindings' wheel alone (1.2 MB) is imported over libraries that have the nine symbols it asks for, and nothing else.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import layout
from contracts.engines.plans import SERVER_TENSORRT
from tests import stub_libraries

SOURCES = [
    *(layout.ROOT / "export" / "proof" / f"{name}.py" for name in ("engine", "layers", "plan_runner")),
    layout.ROOT / "deploy" / "backends" / "python" / "python_based" / "engine.py",
]
SYMBOLS = {
    "libnvinfer.so.11": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    ),
}
# How the sources call what they hold of TensorRT's, and its class.
HELD = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "timed": "ITimingCache",
    "layer": "ILayer",
    "source": "ILayer",
    "inspector": "EngineInspector",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "self._runtime": "Runtime",
}
# The same names for something else.
NOT_TENSORRTS = {
    "config": {"device", "max_batch_size", "profiles"},
    "layer": {"get"},  # the inspector's
    "profile": {"isdecimal"},
}
ASK = """
import json, sys
import tensorrt_bindings as trt
missing = []
for path, keywords in json.loads(sys.argv[1]):
    found = trt
    for name in path.split("."):
        found = getattr(found, name, None)
    told = getattr(found, "__doc__", None) or ""
    missing += [path] if found is None else [f"{path}({word}=)" for word in keywords if f"{word}:" not in told]
print(json.dumps([trt.__version__, missing]))
"""


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that can import them."""
    folder = tmp_path_factory.mktemp("bindings")
    for name, symbols in SYMBOLS.items():
        stub_libraries.compiled(folder, name, "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols))
    wanted = f"tensorrt-cu13-bindings=={SERVER_TENSORRT}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(folder), wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs {wanted}, which cannot be had: {(done.stderr.splitlines() or [''])[-1]}")
    return {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}


def missing(bindings: dict[str, str], uses: list[tuple[str, list[str]]]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(uses)], env=bindings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    version, found = json.loads(done.stdout)
    assert version == SERVER_TENSORRT
    return list(found)


def uses_in(path: Path) -> Iterator[tuple[str, list[str]]]:
    """What a source uses of TensorRT: "IBuilderConfig.set_timing_cache", and the keywords it is given."""
    tree = ast.parse(path.read_text())
    keywords = {
        ast.unparse(node.func): [word.arg for word in node.keywords if word.arg]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        whole = ast.unparse(node)
        holder, _, name = whole.rpartition(".")
        root = whole.removeprefix("self._")
        if root.startswith("trt.") and not root.startswith("trt.__"):
            yield root.removeprefix("trt."), keywords.get(whole, [])
        elif (held := HELD.get(holder)) and name not in NOT_TENSORRTS.get(holder, ()):
            yield f"{held}.{name}", keywords.get(whole, [])


def test_every_attribute_and_keyword_that_we_use_is_there(bindings: dict[str, str]) -> None:
    uses = [use for path in SOURCES for use in uses_in(path)]
    named = {name for name, _ in uses}
    assert {"IBuilderConfig.set_timing_cache", "HardwareCompatibilityLevel", "OnnxParser.parse_from_file"} <= named
    assert {"ICudaEngine.get_tensor_profile_shape", "IExecutionContext.execute_async_v3"} <= named
    assert any(keywords for _, keywords in uses) and len(named) > 40
    levels = [(f"HardwareCompatibilityLevel.{name}", []) for name in ("NONE", "SAME_COMPUTE_CAPABILITY", "AMPERE_PLUS")]
    assert missing(bindings, [*uses, *levels]) == []


def test_what_is_not_there_is_found(bindings: dict[str, str]) -> None:
    planted = [("BuilderFlag.INT8", []), ("IBuilderConfig.set_timing_cache", ["ignore"]), ("Builder.build_engine", [])]
    assert missing(bindings, planted) == [
        "BuilderFlag.INT8", "IBuilderConfig.set_timing_cache(ignore=)", "Builder.build_engine"
    ]  # fmt: skip
