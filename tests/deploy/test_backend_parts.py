"""The parts of the onnxruntime backend that need no Triton: sequences, ragged batches, strings, warm-up, settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from contracts import layout

_BACKENDS = layout.ROOT / "deploy" / "backends"
X = {"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}
Y = {"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}
FEATURES = ("sequence_batching", "allow_ragged_batch", "batch_input", "batch_output", "model_operations")


@pytest.fixture(autouse=True)
def backends_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in the server."""
    for folder in ("python", "onnxruntime"):
        monkeypatch.syspath_prepend(_BACKENDS / folder)
    yield


def configured(at: Path = Path(), **more: Any) -> Any:
    from python_based.config import ModelConfig

    config = {"max_batch_size": 4, "input": [X], "output": [Y], **more}
    args = {"model_config": json.dumps(config), "model_repository": str(at), "model_version": "1"}
    return ModelConfig.of({**args, "model_instance_kind": "CPU", "model_instance_device_id": "0"}, FEATURES)


def request(sequence: int | str, *, start: bool = False, end: bool = False) -> Any:
    return SimpleNamespace(correlation_id=lambda: sequence, flags=lambda: start * 1 + end * 2)


STATE = {"input_name": "before", "output_name": "after", "data_type": "TYPE_INT32", "dims": [1]}


def test_a_sequence_gets_what_its_request_before_left_and_no_other_does() -> None:
    from python_based.errors import ModelError
    from python_based.sequences import States

    states = States(configured(sequence_batching={"state": [STATE]}))
    assert states.of(request(7, start=True)) == {}, "Triton's initial state is right"
    for sequence, value in ((7, 1), ("seven", 2)):
        states.keep(request(sequence, start=True), {"after": np.array([[value]])})
    assert states.of(request(7))["before"] == 1 and states.of(request("seven"))["before"] == 2
    states.keep(request(0), {"after": np.array([[9]])})
    assert states.of(request(0)) == {}, "what fills an idle slot has no state"
    states.keep(request(7, end=True), {"after": np.array([[3]])})
    with pytest.raises(ModelError, match="state of sequence 7 is lost"):
        states.of(request(7))


def test_sequences_that_their_clients_left_are_forgotten_in_the_end() -> None:
    from python_based.sequences import States

    states = States(configured(sequence_batching={"oldest": {"max_candidate_sequences": 2}, "state": [STATE]}))
    for sequence in range(1, 8):
        states.keep(request(sequence, start=True), {"after": np.array([[sequence]])})
    assert [states.of(request(sequence))["before"] for sequence in (4, 5, 6, 7)] == [4, 5, 6, 7]


def test_a_sequence_without_a_state_keeps_nothing() -> None:
    from python_based.sequences import States

    states = States(configured(sequence_batching={"direct": {}}))
    states.keep(request(7, start=True), {})
    assert states.of(request(7)) == {}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("BATCH_ELEMENT_COUNT", [6, 2]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [6, 8]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 6, 8]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0] * 6),
        ("BATCH_ITEM_SHAPE", [[3], [3], [2]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [3, 3, 2]),
    ],
)
def test_requests_of_different_shapes_are_one_row_and_told_apart_by_what_is_made_of_them(
    kind: str, expected: list[Any]
) -> None:
    from python_based.ragged import Joiner

    made = {"kind": kind, "target_name": ["told"], "data_type": "TYPE_INT32", "source_input": ["x"]}
    joiner = Joiner(configured(input=[{**X, "allow_ragged_batch": True}], batch_input=[made]))
    feed = joiner.joined([{"x": np.arange(6.0).reshape(2, 3)}, {"x": np.arange(2.0).reshape(1, 2)}])
    assert feed["x"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert feed["told"].dtype == np.int32 and feed["told"].tolist() == expected


def test_a_row_is_given_back_in_the_requests_shapes_or_not_at_all() -> None:
    from python_based.errors import ModelError
    from python_based.ragged import scattered

    parts = scattered(np.arange(8), [(2, 3), (1, 2)], (-1, -1))
    assert [part.tolist() for part in parts] == [[[0, 1, 2], [3, 4, 5]], [[6, 7]]]
    with pytest.raises(ModelError, match="an output is"):
        scattered(np.arange(7), [(2, 3), (1, 2)], (-1, -1))


TEXTS = [b"", b"plain", b"\xff\xfe", b"a\0b", b"\xf0" * 300, "é".encode()]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 6, 1)])
def test_strings_of_any_bytes_go_through_onnxruntime(shape: tuple[int, ...]) -> None:
    import onnxruntime as ort
    from ort_session import strings

    dims = ",".join("abc"[: len(shape)])
    graph = f'<ir_version: 8, opset_import: ["": 17]> g (string[{dims}] x) => (string[{dims}] y) {{ y = Identity(x) }}'
    session = ort.InferenceSession(onnx.parser.parse_model(graph).SerializeToString())
    texts = np.array(TEXTS, np.object_).reshape(shape)
    strings.check()
    [found] = session.run_with_ort_values(["y"], {"x": strings.value_of(texts)})
    assert strings.bytes_of(found).tolist() == texts.tolist()
    assert strings.bytes_of(strings.value_of(texts[:0])).shape == (0, *shape[1:])
    kept = session.run(["y"], {"x": strings.decoded(np.full(shape, "é".encode(), np.object_))})[0]
    assert (strings.decoded(kept) == kept).all(), "a state comes in as it went out"
    assert (strings.bytes_of(strings.value_of(kept)) == "é".encode()).all()


def test_a_warm_up_is_made_as_triton_makes_it(tmp_path: Path) -> None:
    from python_based.errors import ModelError
    from python_based.warm_up import samples

    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "texts").write_bytes(b"\2\0\0\0ab\0\0\0\0")
    (tmp_path / "warmup" / "numbers").write_bytes(np.arange(3, dtype=np.int16).tobytes())
    inputs = {
        "x": {"data_type": "TYPE_FP32", "dims": ["3"], "zero_data": True},
        "random": {"data_type": "TYPE_INT64", "dims": [2, 2], "random_data": True},
        "texts": {"data_type": "TYPE_STRING", "dims": [2], "input_data_file": "texts"},
        "empty": {"data_type": "TYPE_STRING", "dims": [1], "random_data": True},
        "numbers": {"data_type": "TYPE_INT16", "dims": [2], "input_data_file": "numbers"},
    }
    sample = {"name": "all", "batch_size": 4, "inputs": inputs}
    [(name, feed)] = samples(configured(tmp_path, model_warmup=[sample, {**sample, "batch_size": 0}]))
    assert name == "all"
    assert {n: (v.shape, v.dtype.kind) for n, v in feed.items()} == {
        "x": ((1, 3), "f"),
        "random": ((1, 2, 2), "i"),
        "texts": ((1, 2), "O"),
        "empty": ((1, 1), "O"),
        "numbers": ((1, 2), "i"),
    }
    assert feed["texts"].tolist() == [[b"ab", b""]] and feed["numbers"].tolist() == [[0, 1]]
    with pytest.raises(ModelError, match="'all' has batch_size 5, max_batch_size is 4"):
        list(samples(configured(tmp_path, model_warmup=[{**sample, "batch_size": 5}])))


def test_what_has_no_effect_is_named_and_what_is_mistyped_is_refused() -> None:
    from ort_session import settings
    from python_based.errors import ModelError

    def parameters(**texts: str) -> dict[str, Any]:
        return {name: {"string_value": text} for name, text in texts.items()}

    config = configured(
        parameters=parameters(labels_url="s3://x", gpu_mem_limit="1", family="lookup", intra_op_thread_count="1"),
        optimization={
            "graph": {"level": 3},
            "execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]},
        },
    )
    assert settings.session_options(config).intra_op_num_threads == 1
    assert settings.providers(config) == ["CPUExecutionProvider"]
    assert settings.without_effect(config) == [
        "parameters { gpu_mem_limit labels_url }",
        "gpu_execution_accelerator { tensorrt }",
        "graph { level: 3 }",
    ]
    with pytest.raises(ModelError, match="parameters has enable_mem_arenas, which this backend does not support"):
        settings.session_options(configured(parameters=parameters(enable_mem_arenas="1")))
    with pytest.raises(ModelError, match=r"model_operations: onnxruntime cannot load /nowhere/ops\.so"):
        settings.session_options(configured(model_operations={"op_library_filename": ["/nowhere/ops.so"]}))


@pytest.mark.parametrize(
    ("graph", "given", "added"),
    [
        (
            "(float[B,N] x) => (float[B,N] y) { y = Identity(x) }",
            {},
            {"max_batch_size": 4, "dynamic_batching": {}, "input": [X], "output": [Y]},
        ),
        (
            "(float[B,N] x) => (float[B] y) <int64[1] last = {1}> { y = ReduceSum <keepdims = 0> (x, last) }",
            {"max_batch_size": 1},
            {"input": [X], "output": [{**Y, "dims": [1], "reshape": {"shape": []}}]},
        ),
        (
            "(float[3] x) => (float y) { y = ReduceSum <keepdims = 0> (x) }",
            {},
            {"input": [{**X, "dims": [3]}], "output": [{**Y, "dims": [1]}]},
        ),
        ("(float[B,N] x) => (float[B,N] y) { y = Identity(x) }", {"input": [X], "output": [Y]}, {}),
    ],
)
def test_a_configuration_without_inputs_is_completed_from_the_graph(
    tmp_path: Path, graph: str, given: dict[str, Any], added: dict[str, Any]
) -> None:
    from ort_session.complete import complete

    (tmp_path / "1").mkdir()
    onnx.save(
        onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}'), tmp_path / "1" / "model.onnx"
    )
    config = {"max_batch_size": 0, "input": [], "output": [], "default_model_filename": "", **given}
    expected = {**config, **added}
    complete(config, str(tmp_path / "1"))
    assert config == expected


def test_a_batch_that_the_graph_does_not_have_is_not_added(tmp_path: Path) -> None:
    from ort_session.complete import complete
    from python_based.errors import ModelError

    (tmp_path / "1").mkdir()
    graph = '<ir_version: 8, opset_import: ["": 17]> g (float[3] x) => (float[3] y) { y = Identity(x) }'
    onnx.save(onnx.parser.parse_model(graph), tmp_path / "1" / "model.onnx")
    with pytest.raises(ModelError, match="max_batch_size is not 0, and the graph has an input or output without"):
        complete({"max_batch_size": 2, "input": [], "output": []}, str(tmp_path / "1"))


def test_what_a_backend_does_not_take_part_in_is_refused_by_name() -> None:
    from python_based.config import ModelConfig
    from python_based.errors import ModelError

    with pytest.raises(ModelError, match="sequence_batching has iterative_sequence"):
        configured(sequence_batching={"iterative_sequence": True})
    config = {"max_batch_size": 4, "input": [X], "output": [Y], "sequence_batching": {"direct": {}}}
    args = {"model_config": json.dumps(config), "model_repository": "", "model_version": "1"}
    with pytest.raises(ModelError, match=r"config\.pbtxt has sequence_batching"):
        ModelConfig.of({**args, "model_instance_kind": "GPU", "model_instance_device_id": "0"})
