"""The onnxruntime backend in a real Triton: every type, every setting, and errors that stay with their request."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.triton import environment
from tests.conftest import wait_for
from tests.deploy.tiny_models import (
    BATCHED,
    ON_THE_CPU,
    ROWS,
    TYPES,
    Request,
    Server,
    add,
    add_as_it_is,
    serving,
    values_of,
)

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
_VALUES = ",".join(map(str, TABLE.ravel()))
LOOKUP = f"""(int64[B,1] index) => (float[B,3] row)
  <float[4,3] table = {{{_VALUES}}}> {{ row = GatherND(table, index) }}"""

# Of these two onnxruntime does not find out before it runs them that the batch is not what they say.
BAKED_IN = """(float[B,4] x) => (float[B,4] y) <int64[2] one = {1, 4}>
  { size = Shape(x) ones = Div(size, size) to = Mul(ones, one) y = Reshape(x, to) }"""
SUMMED = (
    """(float[B,4] x) => (float[B,4] y) { rows = Shape <end = 1> (x) over = Sub(rows, rows) y = ReduceSum(x, over) }"""
)
SHIFTED = "(float[B,4] x, float[C,4] by) => (float[B,4] y) <float[1,4] by = {7,7,7,7}> { y = Add(x, by) }"
SCALARS = f"""(float[N] x, int64 index) => (float total, string name, float[3] row)
  <float[4,3] table = {{{_VALUES}}}, string[2] names = {{"some", "other"}}, int64 first = {{0}}>
  {{ total = ReduceSum <keepdims = 0> (x) row = Gather(table, index) name = Gather(names, first) }}"""
ROWS_BY_DATA = (
    """(float[N,4] boxes, bool[N] kept) => (float[R,4] found) { found = Compress <axis = 0> (boxes, kept) }"""
)
# A softer maximum: it has an answer for every length, and one value a sample, [B].
LOUDEST = """(float[B,N] sound, float[B,2] gain) => (float[B] loudest) <int64[1] last = {1}, int64[1] all = {1}>
  { peak = ReduceMax <keepdims = 0> (sound, last) factor = ReduceMean <keepdims = 0> (gain, all)
    loudest = Mul(peak, factor) }"""
PROVEN = {"sound": [[1, 4], [ROWS, 16]], "gain": [[1, 2], [ROWS, 2]]}
# What the native backend takes and either has a meaning here or changes no answer.
HONOURED = """
model_transaction_policy { decoupled: false } model_operations { }
optimization { eager_batching: true priority: PRIORITY_MAX gather_kernel_buffer_threshold: 8 cuda { graphs: true } }
parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0" } }
parameters { key: "gpu_mem_limit" value { string_value: "4294967200" } }
parameters { key: "cudnn_conv_algo_search" value { string_value: "0" } }
parameters { key: "family" value { string_value: "lookup" } }
"""

# What a sequence batcher adds: the answer is x, 100 more with a sequence's first request, and the sequence's id.
SEQUENCE = """(int32[B,1] x, int32[B,1] start, uint64[B,1] id) => (int32[B,1] y) <int32 hundred = {100}>
  { first = Mul(start, hundred) whose = Cast <to = 6> (id) sum = Add(x, first) y = Add(sum, whose) }"""
PATIENT = "max_sequence_idle_microseconds: 60000000"  # a second unless said: a busy machine takes longer
CONTROLS = """
  { name: "start" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
  { name: "id" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }"""
# All that a sequence was sent, which it carries on: how much, and how many.
CARRIED = """(int32[N] x, int32[M] before) => (int32[1] y, int64 count, int32[L] after) <int64[1] all = {0}>
  { after = Concat <axis = 0> (before, x) y = ReduceSum(after, all) count = Size(after) }"""
STATE = f"""sequence_batching {{ {PATIENT} state [ {{
  input_name: "before" output_name: "after" data_type: TYPE_INT32 dims: [ -1 ]
  initial_state {{ name: "none" data_type: TYPE_INT32 dims: [ 1 ] zero_data: true }} }} ] }}"""
ONE_INT = "data_type: TYPE_INT32 dims: [ 1 ]"
# Requests of different lengths as one row: each element is shifted by how many elements there are together.
SHIFTED_ROW = (
    """(float[N] x, float[K] ends) => (float[N] y) { last = ReduceMax <keepdims = 0> (ends) y = Add(x, last) }"""
)
RAGGED = """
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 5000000 }
batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ends" data_type: TYPE_FP32 source_input: "x" } ]
batch_output [ { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" } ]
"""
NO_TENSOR = "(float[B,N] x) => (float[B,N] y, seq(float[B,N]) s) { y = Identity(x) s = SequenceConstruct(x) }"
WARMED = """model_warmup [ { name: "ids" batch_size: 1 inputs { key: "index" value {
  data_type: TYPE_INT64 dims: [ 1 ] %s_data: true } } } ]"""

REFUSED = {  # what a config.pbtxt has beside the model's tensors, and the reason given for it
    "unknown_parameter": (
        'parameters { key: "intra_op_threads" value { string_value: "1" } }',
        "parameters has intra_op_threads, which this backend does not support; it knows arena_extend_strategy, ",
    ),
    "bad_threads": (
        'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
        "intra_op_thread_count is 'many', not a number of threads",
    ),
    "openvino": (
        'optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }',
        "cpu_execution_accelerator has openvino, which this backend does not support",
    ),
    "warm_up": (
        WARMED % "random",
        "model_warmup: 'ids' would fail: Non-zero status code returned while running GatherND",
    ),
    "operators": (
        'model_operations { op_library_filename: "/nowhere/operators.so" }',
        "model_operations: onnxruntime cannot load /nowhere/operators.so: ",
    ),
    "no_such_file": ('default_model_filename: "other.onnx"', "version 1 has no other.onnx"),
    "misfit": (
        'input { name: "more" data_type: TYPE_FP32 dims: 1 } output { name: "row" data_type: TYPE_FP64 dims: 4 }',
        "config.pbtxt does not fit model.onnx: input 'more' is not in it, which has 'index'; "
        "output 'row' is FP64, not FP32; output 'row' has dims [-1, 4], not [-1, 3]",
    ),
}


def _fitting(x: str, y: str, more: str, batch: int = ROWS) -> str:
    """A configuration with x and y alone, of a graph that has more: what it has of either."""
    tensors = f'input [ {{ name: "x" {x} }} ] output [ {{ name: "y" {y} }} ]'
    return f"{ON_THE_CPU} max_batch_size: {batch} {tensors} {more}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("backends") / "models"
    fits, threads = (
        f"max_batch_size: {ROWS} ",
        'parameters { key: "intra_op_thread_count" value { string_value: "%d" } }',
    )
    add(root, "lookup", LOOKUP, BATCHED + threads % 1)
    pair = add(root, "pair", LOOKUP, fits + threads % 3, on=ON_THE_CPU.replace("count: 1", "count: 2")).parent
    config = (pair / "config.pbtxt").read_text()
    (pair / "config.pbtxt").write_text(config.replace("dims: [1]", "dims: [1, 1] reshape { shape: [1] }"))
    for name, (config, _) in REFUSED.items():
        add(root, name, LOOKUP, fits + config)
    for name, types in {"types": [t for t in TYPES if t != "BF16"], "bfloat16": ["BF16", "FP32"]}.items():
        inputs = ", ".join(f"{TYPES[t]}[B,N] {t}" for t in types)
        outputs = ", ".join(f"{TYPES[t]}[B,N] {t}_out" for t in types)
        nodes = " ".join(f"{t}_out = Identity({t})" for t in types)
        add(root, name, f"({inputs}) => ({outputs}) {{ {nodes} }}", BATCHED)
    add(root, "baked_in", BAKED_IN, BATCHED)
    add(root, "summed", SUMMED, fits)
    add(root, "reshaped", "(float[N] x, int64[2] to) => (float[H,W] y) { y = Reshape(x, to) }", "max_batch_size: 0")
    add(root, "shifted", SHIFTED, "max_batch_size: 0")
    add(root, "optional_batched", SHIFTED, fits)
    add(root, "scalars", SCALARS, "max_batch_size: 0")
    add(root, "rows", ROWS_BY_DATA, "max_batch_size: 0")
    add(root, "honoured", LOOKUP, BATCHED + HONOURED)
    for name, strategy in {"sequences": "direct { }", "oldest": "oldest { max_candidate_sequences: 4 }"}.items():
        batcher = f"sequence_batching {{ {PATIENT} {strategy} control_input [ {CONTROLS} ] }}"
        add_as_it_is(root, name, SEQUENCE, _fitting(ONE_INT, ONE_INT, batcher))
    add_as_it_is(root, "carried", CARRIED, _fitting(ONE_INT.replace("1 ]", "-1 ]"), ONE_INT, STATE, batch=0))
    row = "data_type: TYPE_FP32 dims: [ -1 ]"
    add_as_it_is(root, "ragged", SHIFTED_ROW, _fitting(f"{row} allow_ragged_batch: true", row, RAGGED))
    add_as_it_is(root, "no_tensor", NO_TENSOR, _fitting(row, row, ""))
    add(root, "warmed", LOOKUP, BATCHED + WARMED % "zero")
    ranged = add(root, "ranged", LOUDEST, BATCHED)
    (ranged / "manifest.json").write_text(json.dumps({"schema_version": 3, "proven_range": PROVEN}))
    with serving(root, environment.pip_installed(print)) as server:
        yield server


Sent = dict[str, list[tuple[NDArray[Any], NDArray[Any]]]]  # by type: values, and what came back for them


@pytest.fixture(scope="module")
def every_type(server: Server) -> Sent:
    """Three requests of a batch, which have a tensor of each type."""
    seen: Sent = {dtype: [] for dtype in TYPES}
    for model, types in (("types", [t for t in TYPES if t != "BF16"]), ("bfloat16", ["BF16", "FP32"])):
        before = server.executions(model)
        requests = [{t: (t, values_of(t, rows, seed)) for t in types} for seed, rows in enumerate((1, 4, 3))]
        for request, answer in zip(requests, server.ask(model, *requests), strict=True):
            for dtype, (_, values) in request.items():
                seen[dtype].append((values, answer.as_numpy(f"{dtype}_out")))
        wait_for(lambda model=model, before=before: server.executions(model) > before)  # type: ignore[misc]
        assert server.executions(model) == before + 1
    return seen


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_comes_back_as_it_was_sent(every_type: Sent, dtype: str) -> None:
    assert len(every_type[dtype]) >= 3
    for sent, got in every_type[dtype]:
        assert got.dtype == sent.dtype
        assert np.array_equal(got, sent)


def test_a_bad_request_fails_alone_and_its_batch_mates_get_their_rows(server: Server) -> None:
    """One batch, one index that the table does not have."""
    before = server.executions("lookup")
    answers = server.ask("lookup", *({"index": ("INT64", np.array([[i]]))} for i in (0, 1, 2, 9, 3, 2, 1, 0)))
    wait_for(lambda: server.executions("lookup") > before)  # counted once it is answered
    assert server.executions("lookup") == before + 1
    error = answers.pop(3)
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "invalid index found, index = 9" in error.message()
    assert [answer.as_numpy("row").tolist() for answer in answers] == [
        [TABLE[i].tolist()] for i in (0, 1, 2, 3, 2, 1, 0)
    ]


def test_a_string_is_any_bytes(server: Server) -> None:
    """As with the native backend; onnxruntime's Python interface has strings that are UTF-8 alone."""
    requests = [{t: (t, values_of(t, 4, seed)) for t in TYPES if t != "BF16"} for seed in range(2)]
    requests[0]["STRING"][1][2, 1] = b"\xff\0\xfe"
    for request, answer in zip(requests, server.ask("types", *requests), strict=True):
        for dtype, (_, values) in request.items():
            assert np.array_equal(answer.as_numpy(f"{dtype}_out"), values)


def test_what_fails_together_only_is_answered_apart_and_logged_once(server: Server) -> None:
    rows = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 1, 4)
    for _ in range(2):
        answers = server.ask("baked_in", *({"x": ("FP32", row)} for row in rows))
        assert np.array_equal([answer.as_numpy("y") for answer in answers], rows)
    assert server.log.read_text().count("no request of a batch fails alone, 8 fail together") == 1


def test_a_node_that_fails_is_the_requests_fault_and_no_source_file_is_named(server: Server) -> None:
    x = np.arange(6, dtype=np.float32)
    right, wrong = server.ask("reshaped", *({"x": ("FP32", x), "to": ("INT64", np.array([n, 2]))} for n in (3, 4)))
    assert np.array_equal(right.as_numpy("y"), x.reshape(3, 2))
    assert wrong.status() == "StatusCode.INVALID_ARGUMENT"
    assert "cannot be reshaped to the requested shape" in wrong.message()
    assert "/" not in wrong.message()


def test_an_output_without_a_row_for_each_is_the_models_fault(server: Server) -> None:
    """Rather than an answer with the rows of another."""
    [error] = server.ask("summed", {"x": ("FP32", np.ones((2, 4), np.float32))})
    assert error.status() == "StatusCode.INTERNAL"
    assert error.message() == "'y' is [1, 4], not a row for each of 2"


def test_an_optional_input_may_be_left_away(server: Server) -> None:
    x = np.ones((2, 4), np.float32)
    default, given = server.ask("shifted", {"x": ("FP32", x)}, {"x": ("FP32", x), "by": ("FP32", x * 2)})
    assert np.array_equal(default.as_numpy("y"), x + 7)
    assert np.array_equal(given.as_numpy("y"), x + 2)


def test_an_optional_input_is_refused_where_requests_are_batched_as_the_native_backend_does(server: Server) -> None:
    told = "input 'by' is optional, which none can be where max_batch_size is not 0"
    assert told in server.why_not("optional_batched")


def test_a_graphs_scalars_are_ones_to_clients_and_scalars_to_the_graph(server: Server) -> None:
    """As with the native backend; a [1] in their place would give every answer one dimension more."""
    [answer] = server.ask("scalars", {"x": ("FP32", TABLE[1]), "index": ("INT64", np.array([2]))})
    assert answer.as_numpy("total").tolist() == [TABLE[1].sum()]
    assert answer.as_numpy("name").tolist() == [b"some"]
    assert answer.as_numpy("row").tolist() == TABLE[2].tolist()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_rows_that_depend_on_the_data_come_back_and_none_as_none(server: Server, kept: int) -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    [answer] = server.ask("rows", {"boxes": ("FP32", boxes), "kept": ("BOOL", np.arange(3) < kept)})
    assert answer.as_numpy("found").shape == (kept, 4)
    assert np.array_equal(answer.as_numpy("found"), boxes[:kept])


def sound(length: int, loudest: float, rows: int = 1) -> Request:
    return {
        "sound": ("FP32", np.linspace(0, [loudest] * rows, length, dtype=np.float32, axis=1)),
        "gain": ("FP32", np.ones((rows, 2), np.float32)),
    }


def test_what_was_not_proven_is_refused_with_the_range_and_costs_no_other_request(server: Server) -> None:
    """TensorRT refuses what is outside an optimization profile; onnxruntime would answer."""
    for length in (1, 3, 17, 400):
        before = server.executions("ranged")
        refused = server.ask("ranged", sound(length, 2.0), sound(length, 3.0, ROWS - 1))
        for rows, error in zip((1, ROWS - 1), refused, strict=True):
            assert error.status() == "StatusCode.INVALID_ARGUMENT"
            assert error.message() == f"input 'sound' has shape [{rows}, {length}]; proven from [1, 4] to [8, 16]"
        wait_for(lambda before=before: server.executions("ranged") > before)  # type: ignore[misc]
        assert server.executions("ranged") == before + 1, "they were one batch"
    for length in (4, 16):
        [answer] = server.ask("ranged", sound(length, 2.0, ROWS))
        assert answer.as_numpy("loudest").tolist() == [[2.0]] * ROWS, "[8], which is [8, 1] to clients"


def test_a_setting_of_the_native_backend_that_changes_no_answer_is_taken_and_told_of(server: Server) -> None:
    [answer] = server.ask("honoured", {"index": ("INT64", np.ones((ROWS, 1), np.int64))})
    assert np.array_equal(answer.as_numpy("row"), TABLE[[1] * ROWS])
    told = "without effect here: optimization { cuda gather_kernel_buffer_threshold priority }"
    assert told in server.log.read_text()


def in_sequence(server: Server, model: str, sequence: int, values: list[list[int]]) -> list[list[Any]]:
    """All outputs of a sequence's requests."""
    found = []
    for number, value in enumerate(values):
        ends = {"sequence_start": number == 0, "sequence_end": number == len(values) - 1}
        [answer] = server.ask(model, {"x": ("INT32", np.array(value, np.int32))}, sequence_id=sequence, **ends)
        assert not isinstance(answer, Exception), answer
        found.append([answer.as_numpy(output.name).tolist() for output in answer.get_response().outputs])
    return found


@pytest.mark.parametrize("model", ["sequences", "oldest"])
def test_the_sequence_batchers_inputs_reach_the_graph(server: Server, model: str) -> None:
    assert in_sequence(server, model, 7, [[[1]], [[2]], [[3]]]) == [[[[108]]], [[[9]]], [[[10]]]]


def test_a_sequence_carries_its_state_and_a_new_one_begins_without(server: Server) -> None:
    """Which Triton keeps for native backends alone. Its shape grows, from the [1] that Triton begins with."""
    for sequence in (7, 8, 7):
        assert in_sequence(server, "carried", sequence, [[5], [6, 7], [8]]) == [[[5]], [[18]], [[26]]]


def test_requests_of_different_lengths_are_one_batch(server: Server) -> None:
    before = server.executions("ragged")
    values = [np.arange(length, dtype=np.float32).reshape(1, length) for length in range(1, ROWS + 1)]
    answers = server.ask("ragged", *({"x": ("FP32", value)} for value in values))
    wait_for(lambda: server.executions("ragged") > before)
    assert server.executions("ragged") == before + 1
    together = sum(value.size for value in values)
    assert [answer.as_numpy("y").tolist() for answer in answers] == [(value + together).tolist() for value in values]


def test_a_warm_up_that_passes_keeps_nothing_from_serving(server: Server) -> None:
    [answer] = server.ask("warmed", {"index": ("INT64", np.ones((ROWS, 1), np.int64))})
    assert np.array_equal(answer.as_numpy("row"), TABLE[[1] * ROWS])


def test_an_input_is_reshaped_as_configured(server: Server) -> None:
    [answer] = server.ask("pair", {"index": ("INT64", np.array([[[3]], [[1]]]))})
    assert np.array_equal(answer.as_numpy("row"), TABLE[[3, 1]])


def test_instances_are_processes_with_the_threads_that_were_asked_for(server: Server) -> None:
    [one], pair = server.stubs("lookup"), server.stubs("pair")
    assert [stub.num_threads() - one.num_threads() for stub in pair] == [3 - 1, 3 - 1]


def test_a_graph_that_has_anything_but_tensors_is_refused_whatever_is_configured(server: Server) -> None:
    assert "'s' is seq(tensor(float)), no tensor" in server.why_not("no_tensor")


@pytest.mark.parametrize("model", REFUSED)
def test_what_is_not_understood_or_does_not_fit_is_refused(server: Server, model: str) -> None:
    assert REFUSED[model][1] in server.why_not(model)


@pytest.mark.heavy
def test_what_a_configuration_leaves_out_is_completed_and_a_part_of_one_overrides_it(tmp_path: Path) -> None:
    """With --auto-complete-config, as in NVIDIA's container; its examples load a model with a new batch size alone."""
    add_as_it_is(tmp_path / "models", "lookup", LOOKUP, ON_THE_CPU)
    with serving(tmp_path / "models", environment.pip_installed(print), completes=True) as server:
        for size in (4, 16):
            assert int(server.config("lookup")["max_batch_size"]) == size
            [answer] = server.ask("lookup", {"index": ("INT64", np.ones((size, 1), np.int64))})
            assert np.array_equal(answer.as_numpy("row"), TABLE[[1] * size])
            server.client.load_model("lookup", config='{"max_batch_size": "16"}')
