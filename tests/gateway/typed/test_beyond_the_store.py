"""What the store could not keep, or nobody could read, is refused: nobody is told that it was taken."""

import pytest

from tests.gateway.whole import JSON, Whole

AFTER, NUMBER = "9999-12-31T23:59:59-14:00", "1" + "0" * 40


@pytest.mark.parametrize("moment", ["2262-01-01T00:00:00Z", AFTER, "0001-01-01T00:00:00+14:00"])
@pytest.mark.parametrize(
    ("path", "content", "field"),
    [
        ("/v1/feedback", '{"labels": [{"request_id": "a", "value": 1, "time": "%s"}]}', "/labels/0/time"),
        ("/v1/events", '{"events": [{"name": "a", "time": "%s"}]}', "/events/0/time"),
        ("/v1/admin/keys", '{"name": "a", "expires": "%s"}', "/expires"),
    ],
)
def test_a_moment_out_of_its_years(gateway: Whole, path: str, content: str, field: str, moment: str) -> None:
    refused = gateway.ask("POST", path, content % moment)
    assert refused.status == 422 and refused.json["errors"][0]["field"] == field
    assert gateway.ask("POST", path, content % "2261-12-31T23:59:59Z").status in (201, 202)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/feedback", '{"labels": [{"request_id": "a", "value": %s}]}'),
        ("/v1/feedback", '{"labels": [{"request_id": "a", "value": {"a": [0, -%s]}}]}'),
        ("/v1/events", '{"events": [{"name": "a", "data": {"a": %s}}]}'),
    ],
)
def test_a_number_of_more_than_64_bits(gateway: Whole, path: str, content: str) -> None:
    refused = gateway.ask("POST", path, content % NUMBER)
    assert refused.status == 422 and "64 bits" in refused.json["errors"][0]["expected"]
    assert gateway.ask("POST", path, content % (2**63 - 1)).status == 202


def test_a_body_that_is_compressed(gateway: Whole) -> None:
    path, content = "/v1/models/labels/predict", {"rows": [{"image": "boot"}]}
    assert gateway.ask("POST", path, content, {**JSON, "content-encoding": "gzip"}).status == 415
    assert gateway.ask("POST", path, content, {**JSON, "content-encoding": "identity"}).status == 200


@pytest.mark.parametrize("path", ["/v1/models/", "/problems/..%2f", "/v1/feedback/", "//evil.example/v1/models/"])
def test_no_path_leads_to_another(gateway: Whole, path: str) -> None:
    """A redirect would name the host that the caller has named, and drop the body."""
    assert gateway.ask("GET", path, headers={"host": "evil.example"}).status == 404
