"""The benchmarks of the clients, in short: that they run, and that their figures make sense."""

import json
from pathlib import Path

import pytest

from benchmarks.calling import client, storm
from tests.conftest import RunningServer, Workspace


def test_both_clients_are_measured_in_every_way(server: RunningServer, examples: Path) -> None:
    done = server.workspace.run("benchmarks", "client", "--rounds", "1", "--seconds", "0.2")
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == bool(found["findings"]), done.stderr  # in so short a time there may be some
    assert len({(way["protocol"], way["of"], way["client"]) for way in found["overhead"]}) == 2 * 2 * 3
    for way in found["overhead"]:
        assert way["p50_us"][0] > 100
        assert all(per_s > 50 for [per_s] in way["per_s"].values())
    for bulk in found["bulk"]:
        assert bulk["many_per_s"][0] > bulk["loop_per_s"][0] > 50


def test_a_storm_is_measured_with_and_without_retries(server: RunningServer, examples: Path) -> None:
    done = server.workspace.run("benchmarks", "storm", "--rounds", "1", "--seconds", "1")
    found = json.loads(done.stdout.splitlines()[-1])
    *few, without, with_retries = found["ways"]
    assert [way["in_flight"] for way in found["ways"]] == [8, 16, 32, 256, 256]
    assert all(way["succeeded_per_s"][0] > 0 for way in found["ways"])
    assert [way["failed_per_s"][0] for way in few] == [0, 0, 0]
    assert without["failed_per_s"][0] > 0
    peak = max(way["succeeded_per_s"][0] for way in few)
    assert found["goodput_share"] == pytest.approx(with_retries["succeeded_per_s"][0] / peak)
    assert done.returncode == (found["goodput_share"] < 0.9)


@pytest.mark.parametrize("command", ["shared-memory", "hedging"])
def test_what_starts_its_own_server_runs(workspace: Workspace, command: str) -> None:
    out = workspace.must("benchmarks", command, "--rounds", "1", "--seconds", "0.3")
    ways = json.loads(out.splitlines()[-1])["ways"]
    assert len(ways) == {"shared-memory": 8, "hedging": 2}[command]
    if command == "hedging":
        plain, hedged = ways
        assert plain["sent_per_call"] == [1]
        assert 1 <= hedged["sent_per_call"][0] < 1.5
    else:
        assert all(way["sent_p50_us"][0] > 0 and way["shared_p50_us"][0] > 0 for way in ways)


def test_what_costs_more_than_it_may_is_named() -> None:
    def way(client: str, p50_us: float, per_s: float) -> client.Way:
        return client.Way("grpc", "threads", client, (p50_us,) * 3, {8: (per_s,) * 3, 32: (1000.0,) * 3})

    bulk = client.Bulk(10, "http", (20.0,), (10.0,))
    assert client.findings([way("tritonclient, same request", 1000, 1000), way("ours", 1099, 951)], []) == []
    assert client.findings([way("tritonclient, same request", 1000, 1000), way("ours", 1101, 949)], [bulk]) == [
        "grpc, threads: +101 µs at p50 (limit: 100)",
        "grpc, threads: 0.949 of the throughput of 8 at once (limit: 0.95)",
        "http: classify_many is 2.0× a loop (limit: 3)",
    ]


def test_goodput_is_compared_with_the_peak_of_the_same_round() -> None:
    def way(name: str, *succeeded_per_s: float) -> storm.Storm:
        return storm.Storm(name, 1, succeeded_per_s, (0.0,) * 3, (0.0,) * 3)

    few = [
        way(name, *per_s) for name, per_s in zip(storm._PEAK, ((100, 50, 10), (90, 60, 10), (80, 40, 20)), strict=True)
    ]
    assert storm.goodput_share([*few, way("storm with retries", 80, 57, 18)]) == 0.9
