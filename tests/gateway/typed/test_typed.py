"""The typed door, of the whole gateway with a real Triton behind it."""

import json
import time
from typing import Any

import pytest

from tests.gateway.whole import Answer, Whole

ROW = {
    "flag": True,
    "tiny": -128,
    "large": 2**64 - 1,
    "half": 0.5,
    "double": 1e300,
    "word": "a",
    "grid": [[1, 2, 3]] * 2,
}
EITHER: dict[str, Any] = {"word": "a", "count": 7, "sure": True, "value": 0.5}
FERRY = {"line": "A", "pier": "North", "departure": "2013-11-03T08:30"}


def predict(gateway: Whole, model: str, body: dict[str, Any] | str, **more: Any) -> Answer:
    return gateway.ask("POST", f"/v1/models/{model}/predict", body, **more)


def faults(answer: Answer) -> dict[str, tuple[str, str]]:
    """{field: (got, expected)} of a problem."""
    assert answer.status == 422, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "/problems/invalid-input"
    return {fault["field"]: (fault["got"], fault["expected"]) for fault in answer.json["errors"]}


def test_rows_come_back_as_rows_of_every_datatype(gateway: Whole) -> None:
    other = {**ROW, "flag": False, "half": None, "word": {"base64": "//4="}}
    answer = predict(gateway, "table", {"rows": [ROW, other]})
    assert answer.status == 200, answer.body
    back = [{name.removesuffix("_out"): value for name, value in row.items()} for row in answer.json["rows"]]
    assert back == [ROW, other]
    assert answer.json["model"] == "table" and answer.json["version"] == "1"
    assert answer.headers["x-request-id"] == answer.json["request_id"]
    assert "triton;dur=" in answer.headers["server-timing"]


def test_columns_come_back_as_columns(gateway: Whole) -> None:
    columns = {name: [value, value] for name, value in ROW.items()}
    answer = predict(gateway, "table", {"inputs": columns, "outputs": ["tiny_out", "grid_out"]})
    assert answer.json["outputs"] == {"tiny_out": [-128, -128], "grid_out": [ROW["grid"]] * 2}


def test_an_optional_input_may_be_left_out(gateway: Whole) -> None:
    row = {name: value for name, value in ROW.items() if name != "grid"}
    answer = predict(gateway, "table", {"rows": [row]})
    assert answer.json["rows"][0]["grid_out"] == [[-1.0] * 3] * 2


def test_rows_go_to_a_model_that_takes_records_as_one_text_each(gateway: Whole) -> None:
    rows = [{"word": 'Zoë "x"', "count": 7, "sure": True, "value": 0.5}, {**EITHER, "value": None}]
    for body in ({"rows": rows}, {"inputs": {name: [row[name] for row in rows] for name in EITHER}}):
        answer = predict(gateway, "either", body)
        assert answer.status == 200, answer.body
        found = answer.json.get("rows") or [
            dict(zip(answer.json["outputs"], row, strict=True))
            for row in zip(*answer.json["outputs"].values(), strict=True)
        ]
        assert [row["way"] for row in found] == ["records"] * 2
        assert [json.loads(row["told"]) for row in found] == rows


def test_a_text_that_json_has_not_goes_as_a_column(gateway: Whole) -> None:
    [row] = predict(gateway, "either", {"rows": [{**EITHER, "word": {"base64": "//4="}}]}).json["rows"]
    assert row["way"] == "columns" and row["told"].startswith("(b'\\xff\\xfe', 7, True")


def test_a_release_from_before_that_has_just_taken_over_is_asked_by_columns(gateway: Whole) -> None:
    [row] = predict(gateway, "either", {"rows": [{**EITHER, "word": "before"}]}).json["rows"]
    assert row["way"] == "columns" and "b'before', 7, True" in row["told"]


def test_of_records_callers_know_nothing_and_every_field_is_asked_for(gateway: Whole) -> None:
    row = {name: value for name, value in EITHER.items() if name != "count"}
    assert faults(predict(gateway, "either", {"rows": [row]})) == {"/rows/0/count": ("nothing", "an integer (INT32)")}
    found = faults(predict(gateway, "either", {"rows": [{**EITHER, "records": "{}"}]}))
    assert found == {"/rows/0/records": ("'records'", "one of word, count, sure, value")}
    about = gateway.ask("GET", "/v1/models/either").json["inputs"]
    assert {each["name"]: each["optional"] for each in about} == dict.fromkeys(EITHER, False)


@pytest.mark.parametrize(
    ("changed", "field", "got", "expected"),
    [
        ({"tiny": 128}, "/rows/0/tiny", "128", "an integer (INT8), at most 127"),
        ({"tiny": 1.5}, "/rows/0/tiny", "1.5", "an integer (INT8)"),
        ({"tiny": "7"}, "/rows/0/tiny", "'7'", "an integer (INT8)"),
        ({"large": -1}, "/rows/0/large", "-1", "an integer (UINT64), at least 0"),
        ({"flag": 1}, "/rows/0/flag", "1", "true or false (BOOL)"),
        ({"half": 70000.0}, "/rows/0/half", "70000.0", "a number, or null if it is not known (FP16), at most 65504.0"),
        ({"double": "NaN"}, "/rows/0/double", "'NaN'", "a number, or null if it is not known (FP64)"),
        ({"word": {"base64": "!"}}, "/rows/0/word", "an object with base64", "a text, or bytes as {base64} (BYTES)"),
        ({"word": None}, "/rows/0/word", "null", "a text, or bytes as {base64} (BYTES)"),
        ({"grid": [[1, 2, 3]]}, "/rows/0/grid", "1", "a list of 2 × 3 numbers (FP32)"),
        ({"grid": [[1, 2, "x"], [1, 2, 3]]}, "/rows/0/grid/0/2", "'x'", "a list of 2 × 3 numbers (FP32)"),
        ({"tinny": 1}, "/rows/0/tinny", "'tinny'", "one of flag, tiny, large, half, double, word, grid"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_got_and_expected(
    changed: dict[str, Any], field: str, got: str, expected: str, gateway: Whole
) -> None:
    found = faults(predict(gateway, "table", {"rows": [{**ROW, **changed}]}))
    assert found == {field: (got, expected)}


def test_a_field_that_is_missing_and_too_many_rows_are_named(gateway: Whole) -> None:
    row = {name: value for name, value in ROW.items() if name != "tiny"}
    assert faults(predict(gateway, "table", {"rows": [ROW, row]})) == {"/rows/1/tiny": ("nothing", "an integer (INT8)")}
    assert faults(predict(gateway, "table", {"rows": [ROW] * 9})) == {"/rows": ("9", "1 to 8 rows")}
    assert faults(predict(gateway, "table", {"rows": []})) == {"/rows": ("0", "1 to 8 rows")}


def test_columns_of_different_lengths_and_two_forms_at_once_are_refused(gateway: Whole) -> None:
    columns = {name: [value] for name, value in ROW.items()}
    found = faults(predict(gateway, "table", {"inputs": {**columns, "tiny": [1, 2]}}))
    assert found["/inputs/tiny"] == ("2 rows", "as many as the others")
    assert faults(predict(gateway, "table", {"inputs": columns, "rows": [ROW]})) == {
        "": ("rows, inputs", "one of rows, inputs")
    }
    assert faults(predict(gateway, "table", {"entities": [FERRY]})) == {"": ("entities", "one of rows, inputs")}


@pytest.mark.parametrize("body", ["", "{", "[]", "3", '{"rows": NaN}', "\xff", '{"rows": [' * 2000])
def test_what_is_no_json_object_is_refused(body: str, gateway: Whole) -> None:
    answer = predict(gateway, "table", body)
    assert answer.status == 400 and answer.json["type"] == "/problems/malformed"


def test_entities_are_filled_from_the_tables_of_the_release_that_serves(gateway: Whole) -> None:
    answer = predict(gateway, "ferries", {"entities": [FERRY, {**FERRY, "passengers": 7}]})
    assert answer.status == 200, answer.body
    assert [row["minutes"] for row in answer.json["rows"]] == [4.0, 11.0]
    assert answer.json["rows"][0]["tonnes_out"] is None  # NaN: Bea's is not known
    assert answer.json["defaults"][0] == ["passengers", "tonnes"]


@pytest.mark.parametrize(
    ("changed", "field", "expected"),
    [
        ({"pier": "West"}, "/entities/0/pier", "one of North, South"),
        ({"line": 5}, "/entities/0/line", "the letter on its bow: a text"),
        ({"boat": "Ada"}, "/entities/0/boat", "one of line, pier, departure, passengers"),
        ({"departure": "soon"}, "/entities/0/departure", "departure: a time, as text"),
        ({"departure": ""}, "/entities/0/departure", "departure: a time, as text"),
        ({"passengers": 501}, "/entities/0/passengers", "passengers: an integer, at least 0, at most 500"),
        ({"departure": "2013-11-09T08:30"}, "/entities", "entities that are known"),
    ],
)
def test_what_is_no_entity_is_refused(changed: dict[str, Any], field: str, expected: str, gateway: Whole) -> None:
    found = faults(predict(gateway, "ferries", {"entities": [{**FERRY, **changed}]}))
    assert {name: told for name, (_, told) in found.items()} == {field: expected}


def test_a_file_is_labelled_as_the_body_or_in_a_form(gateway: Whole) -> None:
    one = gateway.ask("POST", "/v1/models/labels/classify", b"boot and more", {"content-type": "image/png"})
    top = [
        {"label": "boot and", "score": 0.75},
        {"label": "other", "score": 0.25},
        {"label": {"base64": "//4="}, "score": 0.0},
    ]
    assert one.json["predictions"] == [{**top[0], "top": top}]
    form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\none\r\n' * 2 + b"--x--\r\n"
    two = gateway.ask("POST", "/v1/models/labels/classify", form, {"content-type": "multipart/form-data; boundary=x"})
    assert [found["label"] for found in two.json["predictions"]] == ["one", "one"]


@pytest.mark.parametrize(
    "name", ['name="a"; filename="\xd1\x84.png"', "name=a; filename*=UTF-8''%D1%84.png; filename=x"]
)
def test_a_file_may_be_called_as_people_call_theirs(name: str, gateway: Whole) -> None:
    head = f"--x\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode("latin-1")
    sent = gateway.ask(
        "POST",
        "/v1/models/labels/classify",
        head + b"one\r\n--x--\r\n",
        {"content-type": "multipart/form-data; boundary=x"},
    )
    assert sent.status == 200 and sent.json["predictions"][0]["label"] == "one", sent.body


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (
            b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\none\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            400,
        ),
        (b"", "image/png", 422),
        (b"boot", "text/plain", 415),
        (b"!broken", "image/png", 422),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
        (b"junk", "multipart/form-data; boundary=x", 400),
        (b"junk", "multipart/form-data", 400),
    ],
)
def test_what_is_no_file_is_refused(content: bytes, kind: str, status: int, gateway: Whole) -> None:
    answer = gateway.ask("POST", "/v1/models/labels/classify", content, {"content-type": kind})
    assert answer.status == status and answer.json["status"] == status


def test_texts_become_vectors(gateway: Whole) -> None:
    answer = gateway.ask("POST", "/v1/models/vectors/embed", {"texts": ["banana", "ä"]})
    assert answer.json["embeddings"] == [[6.0, 3.0, 0.5, None], [2.0, 0.0, 0.5, None]]
    empty = gateway.ask("POST", "/v1/models/vectors/embed", {"texts": []})
    assert faults(empty) == {"/texts": ("0", "1 to 8 rows")}


def test_a_task_that_a_model_does_not_do_is_not_found(gateway: Whole) -> None:
    answer = gateway.ask("POST", "/v1/models/table/embed", {"texts": ["a"]})
    assert answer.status == 404 and answer.json["detail"] == "table does predict, and no embed"
    assert gateway.ask("POST", "/v1/models/nothing/predict", {"rows": []}).status == 404
    assert gateway.ask("POST", "/v1/models/table/predict?version=9", {"rows": [ROW]}).status == 404
    assert gateway.ask("POST", "/v1/models/table/predict?version=x", {"rows": [ROW]}).status == 400


def test_models_are_listed_and_described(gateway: Whole) -> None:
    listed = gateway.ask("GET", "/v1/models").json["models"]
    assert {model["name"]: model["tasks"] for model in listed} == {
        "either": ["predict"],
        "ferries": ["predict"],
        "labels": ["predict", "classify"],
        "table": ["predict"],
        "vectors": ["predict", "embed"],
    }
    about = gateway.ask("GET", "/v1/models/ferries").json
    assert (
        about["version"] == "2"
        and about["release"]["network"] == "net"
        and about["forms"] == ["rows", "inputs", "entities"]
    )
    assert [entity["name"] for entity in about["entities"]] == ["line", "pier", "departure", "passengers"]
    assert about["inputs"][0] == {"name": "line", "datatype": "BYTES", "dims": [1], "optional": False}


def test_who_has_no_key_or_no_scope_is_refused_and_learns_nothing_of_what_there_is(gateway: Whole) -> None:
    labels = gateway.key("labels:*")
    for path in ("/v1/models", "/v1/models/table", "/openapi.json", "/v1/admin/keys", "/metrics"):
        assert gateway.ask("GET", path, key="").status == 401
    for name in ("table", "nothing"):
        refused = predict(gateway, name, {"rows": [ROW]}, key=labels)
        assert refused.status == 403 and refused.json["type"] == "/problems/not-allowed"
    assert [model["name"] for model in gateway.ask("GET", "/v1/models", key=labels).json["models"]] == ["labels"]
    assert "/v1/models/table/predict" not in gateway.ask("GET", "/openapi.json", key=labels).json["paths"]
    assert gateway.ask("GET", "/v1/admin/keys", key=labels).status == 403
    assert gateway.ask("GET", "/metrics", key=gateway.key("*:read")).status == 403


def test_a_quota_is_told_and_ends_with_429_and_when_to_come_back(gateway: Whole) -> None:
    key = gateway.key(requests_long="3/hour", inferences_day="10")
    first = predict(gateway, "table", {"rows": [ROW]}, key=key)
    assert first.headers["ratelimit-policy"] == '"requests-long";q=3;w=3600, "inferences-day";q=10;w=86400'
    assert (first.headers["ratelimit-limit"], first.headers["ratelimit-remaining"]) == ("3", "2")
    over = predict(gateway, "table", {"rows": [ROW] * 8}, key=key)
    assert over.status == 200
    over = predict(gateway, "table", {"rows": [ROW] * 8}, key=key)
    assert over.status == 429 and "10 inferences" in over.json["detail"] and int(over.headers["retry-after"]) > 0
    assert predict(gateway, "nothing", {"rows": [ROW]}, key=key).status == 404  # an error, and never more quota


def test_a_retry_with_its_idempotency_key_is_answered_counted_and_recorded_once(gateway: Whole) -> None:
    key = gateway.key(requests_long="2/hour", priority_most=1)
    headers = {"content-type": "application/json", "idempotency-key": "order 7"}
    first = predict(gateway, "table", {"rows": [ROW]}, key=key, headers=headers)
    again = [predict(gateway, "table", {"rows": [ROW]}, key=key, headers=headers) for _ in range(5)]
    assert {answer.body for answer in again} == {first.body} and first.status == 200
    assert all(answer.headers["idempotency-replayed"] == "true" for answer in again)
    other = predict(gateway, "table", {"rows": [ROW, ROW]}, key=key, headers=headers)
    assert other.status == 422 and other.json["type"] == "/problems/key-reused"
    assert predict(gateway, "table", {"rows": [ROW]}, key=key).headers["ratelimit-remaining"] == "0"
    somebody = predict(gateway, "table", {"rows": [ROW, ROW]}, headers=headers)
    assert somebody.status == 200 and "idempotency-replayed" not in somebody.headers  # keys are a caller's own


def test_what_failed_may_be_tried_again_with_the_same_idempotency_key(gateway: Whole) -> None:
    headers = {"content-type": "image/png", "idempotency-key": "broken"}
    for _ in range(2):
        assert gateway.ask("POST", "/v1/models/labels/classify", b"!x", headers).status == 422


def test_an_error_names_the_record_that_it_left(gateway: Whole) -> None:
    headers = {"content-type": "image/png", "x-request-id": "what-i-call-it"}
    answer = gateway.ask("POST", "/v1/models/labels/classify", b"!x", headers)
    assert answer.status == 422 and answer.headers["x-request-id"] == answer.json["request_id"]
    assert "422" in _shown(gateway, answer.json["request_id"], "what-i-call-it")


def test_a_label_and_an_event_are_in_the_store_moments_later(gateway: Whole) -> None:
    answer = predict(gateway, "table", {"rows": [ROW]})
    request_id = answer.json["request_id"]
    label = {"request_id": request_id, "value": "Sneaker", "time": "2026-01-01T00:00:00Z"}
    assert gateway.ask("POST", "/v1/feedback", {"labels": [label, label]}).json == {"taken": 2}
    unknown = {"request_id": "nobody-knows", "value": None}
    assert gateway.ask("POST", "/v1/feedback", {"labels": [unknown]}).status == 202
    event = {"name": "converted", "request_id": request_id, "value": 9.5, "data": {"basket": [1, 2]}}
    assert gateway.ask("POST", "/v1/events", {"events": [event]}).json == {"taken": 1}
    shown = _shown(gateway, request_id, "Sneaker")
    assert shown.count("Sneaker") >= 1 and "converted" in shown


@pytest.mark.parametrize(
    "body",
    [
        {"labels": []},
        {"labels": [{"request_id": "x"}]},
        {"labels": [{"request_id": "x" * 65, "value": 1}]},
        {"labels": [{"request_id": "x", "value": "y" * 5000}]},
        {"labels": [{"request_id": "x", "value": 1, "time": "2026-01-01T00:00:00"}]},
        {"events": [{"name": "x"}]},
    ],
)
def test_what_is_no_label_is_refused(body: dict[str, Any], gateway: Whole) -> None:
    assert gateway.ask("POST", "/v1/feedback", body).status == 422


def test_keys_are_administered_over_http_by_who_may(gateway: Whole) -> None:
    made = gateway.ask(
        "POST", "/v1/admin/keys", {"name": "shop", "scopes": ["labels:infer"], "limits": {"requests_day": "5"}}
    )
    assert made.status == 201 and made.headers["cache-control"] == "no-store"
    key, key_id = made.json["secret"], made.json["id"]
    listed = gateway.ask("GET", "/v1/admin/keys").json["keys"]
    assert key not in json.dumps(listed) and any(
        each["id"] == key_id and each["limits"] == {"requests_day": "5"} for each in listed
    )
    rotated = gateway.ask("POST", f"/v1/admin/keys/{key_id}/rotate", {"grace_s": 0}).json["secret"]
    _until(lambda: gateway.ask("GET", "/v1/models", key=rotated).status == 200)
    assert gateway.ask("GET", "/v1/models", key=key).status == 401
    assert gateway.ask("DELETE", f"/v1/admin/keys/{key_id}").json["state"] == "revoked"
    _until(lambda: gateway.ask("GET", "/v1/models", key=rotated).status == 401)
    assert gateway.ask("DELETE", "/v1/admin/keys/00000000").status == 404
    for wrong in ({"name": "x", "scopes": ["fly"]}, {"name": "x", "limits": {"requests": "1"}}, {"name": ""}):
        assert gateway.ask("POST", "/v1/admin/keys", wrong).status == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/models/table/predict", 405),
        ("GET", "/v3", 404),
    ],
)
def test_every_error_is_problem_details(method: str, path: str, status: int, gateway: Whole) -> None:
    answer = gateway.ask(method, path)
    assert answer.status == status and answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status and gateway.ask("GET", answer.json["type"], key="").status == 200


def test_a_body_over_the_limit_is_refused_before_it_is_read(gateway: Whole) -> None:
    answer = gateway.ask("POST", "/v1/models/labels/classify", b"x" * ((32 << 20) + 1), {"content-type": "image/png"})
    assert answer.status == 413


def _shown(gateway: Whole, request_id: str, word: str) -> str:
    import subprocess
    import sys

    from contracts import layout

    def show() -> str:
        return subprocess.run(
            [sys.executable, "-m", "store", "show", request_id],
            cwd=layout.ROOT, env=dict(gateway.environment), capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    _until(lambda: word in show(), 20)
    return show()


def _until(condition: Any, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
