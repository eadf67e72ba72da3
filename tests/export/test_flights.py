"""Trees from their library to a server: what is served is what the published graph answers, and what is refused."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from cli.progress import Progress
from clients import Client, ClientError, Entities, FeatureServer
from clients.errors import InvalidInputError
from contracts import golden, manifest
from contracts.entities import records
from contracts.manifest import Manifest
from contracts.samples import Batch
from contracts.spec import Limits
from export import pipeline
from export.cache import Cache
from export.context import ExportRequest
from export.errors import RefusedError
from export.source.base import ExportSource
from export.source.checkpoint import from_checkpoint
from tests.conftest import free_ports, port_options
from tests.training import made_up_flights as made_up
from tests.training.features.stores import Store, ingest, running
from tests.workspace import Workspace, new_workspace
from training import checkpoints, families
from training.families.flights import data as flights_data
from training.families.flights.entities import DELAYS, PLANE, WEATHER
from training.families.flights.estimators import ESTIMATORS
from training.families.flights.tables import source as files
from training.lineage import Lineage

MODELS = ("flights", "flights_preprocess", "flights_delay")
# Of some 500 flights even a loss of nothing is no small one.
LIMITS = {"fp32": Limits({"probability": 1e-5}, agreement=0.99, drop=10.0, also={"brier": 0.01})}

pytestmark = pytest.mark.heavy


@dataclass(frozen=True)
class Published:
    """A release of trees that were grown on made-up flights."""

    workspace: Workspace
    source: ExportSource
    release: Manifest
    raw: Batch  # flights of the test split, as clients send them

    @property
    def directory(self) -> Path:
        return self.workspace.repository / "flights_delay" / "1"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportSource]:
    folder = tmp_path_factory.mktemp("data") / files.FOLDER
    with pytest.MonkeyPatch.context() as patch:
        made_up.take_for_the_real_ones(made_up.write_year(folder), patch)
        family = families.load("flights")
        data = family.data()
        model = ESTIMATORS["lightgbm"](trees=15, leaves=7, fewest=20, rate=0.3)
        model.fit(data.split("train"), data.split("val"), seed=0)
        path = folder.parent / "best.ckpt"
        came = Lineage("flights", data.fingerprint, None, None, None)
        checkpoints.write(path, "lightgbm", {"trees": 15}, model.state(), came)
        whole = from_checkpoint(family, checkpoints.read(path, family), calibration_samples=64)
        yield replace(whole, spec=replace(whole.spec, limits=LIMITS))


@pytest.fixture(scope="module")
def published(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Published:
    workspace = new_workspace(tmp_path_factory.mktemp("flights"))
    for folder in workspace.repository.iterdir():
        if folder.name not in MODELS:
            shutil.rmtree(folder)
    release = export(source, workspace)
    assert source.raw_examples is not None
    return Published(workspace, source, release, source.raw_examples(64))


@pytest.fixture(scope="module")
def address(published: Published) -> Iterator[str]:
    workspace = published.workspace
    quickly = ("--drain", "3", *port_options(free_ports()))
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *quickly)
    yield json.loads(workspace.must("deploy", "status", "--json"))["grpc"]
    workspace.down()


@pytest.fixture(scope="module", params=["one process", "ensemble"])
def shaped(
    published: Published, address: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[str]:
    """A server with the release in that shape, by gRPC."""
    if request.param == "one process":
        yield address
        return
    other = Workspace(tmp_path_factory.mktemp("ensembles"))
    quickly = ("--drain", "3", *port_options(free_ports()))
    other.must("deploy", "up", "--detach", "--ensembles", "--repository", published.workspace.repository, *quickly)
    yield json.loads(other.must("deploy", "status", "--json"))["grpc"]
    other.down()


def export(source: ExportSource, workspace: Workspace) -> Manifest:
    request = ExportRequest("python -m export flights", precisions=["fp32"], serve=False)
    cache = Cache(workspace.root / "cache", {"code": "today"})
    model = workspace.repository / "flights_delay"
    return pipeline.run(source, request, model_directory=model, cache=cache, progress=Progress())


def test_the_release_is_for_a_cpu_and_says_what_it_is_worth_by_month(published: Published) -> None:
    release = manifest.verify(published.directory)
    [variant] = release.variants
    assert variant.precision == "fp32" and variant.passed and variant.engine is None
    assert release.without_tensorrt and [choice.file for choice in release.choices] == ["model.onnx"]
    assert release.source.compared_with == "LightGBM, with the model in the checkpoint,"
    assert variant.differences["probability"].largest < 1e-6
    found = {(figure.metric.name, figure.segment): figure for figure in release.figures}
    months = ("", "October", "November", "December")
    assert found.keys() == {(name, month) for name in ("auc", "brier", "calibration_error") for month in months}
    for figure in found.values():
        assert figure.low <= figure.value <= figure.high, figure
    assert found["auc", ""].low > 0.5
    gates = {gate.id for gate in variant.gates}
    assert {"metric_drop", "metric_drop:auc:December", "metric_drop:brier:October"} <= gates
    assert "contract:flights_preprocess/vocabularies.json" in {gate.id for gate in release.gates}
    assert (published.directory / "release" / "flights_preprocess" / "vocabularies.json").is_file()


def test_its_report_says_what_matters(published: Published) -> None:
    page = (published.directory / "report.html").read_text()
    assert "What matters" in page and "wind_speed" in (published.directory / "report.md").read_text()


def test_vocabularies_that_are_not_those_of_training_are_refused(source: ExportSource, tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path)
    listed = workspace.repository / "flights_preprocess" / "vocabularies.json"
    listed.write_text(listed.read_text().replace('"9E", "AA"', '"AA", "9E"'))
    with pytest.raises(RefusedError, match="carrier 1 is 'AA', not '9E'; carrier 2 is '9E', not 'AA'"):
        export(source, workspace)


def test_what_is_served_is_what_the_published_graph_answers(published: Published, address: str) -> None:
    session = onnxruntime.InferenceSession(published.directory / "model.onnx", providers=["CPUExecutionProvider"])
    groups = published.source.held_out.groups
    inputs = {name: np.concatenate([group.inputs[name] for group in groups]) for name in groups[0].inputs}
    [offline] = session.run(["probability"], inputs)
    rows = np.linspace(0, len(offline) - 1, 64).astype(int)
    with Client(f"grpc://{address}") as client:
        whole = client.infer("flights", published.raw)["probability"]
        alone = [client.infer("flights", {k: v[i : i + 1] for k, v in published.raw.items()}) for i in range(8)]
    np.testing.assert_allclose(whole, offline[rows], rtol=0, atol=1e-6)
    np.testing.assert_allclose([each["probability"][0] for each in alone], whole[:8], rtol=0, atol=1e-6)


def test_its_golden_requests_are_answered(published: Published, address: str) -> None:
    with Client(f"grpc://{address}") as client:
        for model in ("flights", "flights_delay"):
            requests = golden.find(published.workspace.repository, model)
            assert requests
            for request in requests:
                assert not request.fault(client.infer(request.model, request.inputs, outputs=[*request.answers]))


def test_who_asks_for_what_no_flight_can_be_is_told_so_and_no_neighbour_is_harmed(
    published: Published, address: str
) -> None:
    good = {name: values[:1] for name, values in published.raw.items()}
    bad = {**good, "departure": np.array([[b"2013-03-10T02:30"]], np.object_)}
    with Client(f"grpc://{address}") as client, ThreadPoolExecutor(8) as pool:
        right = client.infer("flights", good)["probability"]
        sent = [[pool.submit(client.infer, "flights", each) for each in (bad, good)] for _ in range(20)]
        for refused, answered in sent:
            error = refused.exception()
            assert isinstance(error, ClientError) and "departure does not exist" in str(error)
            np.testing.assert_array_equal(answered.result()["probability"], right)


def test_records_get_the_answers_of_columns_to_the_byte_and_a_bad_one_fails_alone(
    published: Published, shaped: str
) -> None:
    columns, texts = published.raw, records.of_columns(published.raw)
    good, bad = texts[records.NAME][:1], np.array([[b'{"carrier": "UA"']], np.object_)
    with Client(f"grpc://{shaped}") as client, ThreadPoolExecutor(8) as pool:
        whole = client.infer("flights", columns)["probability"]
        assert client.infer("flights", texts)["probability"].tobytes() == whole.tobytes()
        sent: list[Batch] = [
            {name: values[row : row + 1] for name, values in way.items()}
            for row in range(40)
            for way in (columns, texts)
        ]
        harm: list[Batch] = [{records.NAME: bad}, {records.NAME: np.concatenate([good, bad, good])}] * 10
        refused = [pool.submit(client.infer, "flights", each) for each in harm]
        answered = [pool.submit(client.infer, "flights", each) for each in sent]
        alone = np.concatenate([each.result()["probability"] for each in answered])
        np.testing.assert_array_equal(alone[::2], alone[1::2])
        np.testing.assert_allclose(alone[::2], whole[:40], rtol=0, atol=1e-6)
        for each in refused:
            told = each.exception()
            assert isinstance(told, ClientError) and "records: no JSON, Expecting ',' delimiter" in str(told)


def test_who_sends_both_ways_or_neither_is_told_what_is_expected(published: Published, shaped: str) -> None:
    """Of a client that checks nothing itself: ours refuses the same before it sends it."""
    texts = records.of_columns(published.raw)
    row = {name: values[:1] for name, values in {**published.raw, **texts}.items()}
    asked: dict[str, list[str]] = {
        "records and carrier, origin, destination and 22 more are given; expected records alone, or all": [*row],
        "records and temp are given": [records.NAME, "temp"],
        "carrier, origin, destination and 21 more missing; expected": ["temp"],
        "request has 0 inputs": [],
    }
    with Client(f"grpc://{shaped}") as client:
        for said, names in asked.items():
            with pytest.raises(InferenceServerException, match=said):
                _by_hand(shaped, {name: row[name] for name in names})
            with pytest.raises(InvalidInputError):
                client.infer("flights", {name: row[name] for name in names})
        client.infer("flights", {records.NAME: row[records.NAME]})


def _by_hand(address: str, inputs: Batch) -> None:
    sent = []
    for name, values in inputs.items():
        sent.append(triton.InferInput(name, values.shape, np_to_triton_dtype(values.dtype)))
        sent[-1].set_data_from_numpy(values)
    triton.InferenceServerClient(address).infer("flights", sent)


def test_a_caller_who_knows_the_flight_gets_the_answer_of_the_whole_row(published: Published, address: str) -> None:
    """Weather and plane are joined as in training; the duration is that of the flight's last time."""
    raw, asked = published.raw, []
    for origin, at in zip(raw["origin"][:, 0].tolist(), raw["departure"][:, 0].tolist(), strict=True):
        carrier, number, destination, _ = made_up.ROUTES[origin.decode()]
        known = {"carrier": carrier, "flight": str(number), "origin": origin.decode(), "destination": destination}
        asked.append({**known, "departure": at.decode()})
    filled = Entities.of_release(published.directory).fill(asked)
    assert filled.inputs.keys() == raw.keys()
    for name in (*WEATHER, *PLANE, "distance"):
        np.testing.assert_array_equal(filled.inputs[name], raw[name], err_msg=name)
    without = {name: filled.inputs[name] for name in ("duration", *DELAYS)}
    assert all(np.isnan(without[name]).all() for name in DELAYS)  # which no release has
    with Client(f"grpc://{address}") as client:
        found = client.infer("flights", filled.inputs)["probability"]
        whole = client.infer("flights", {**raw, **without})["probability"]
    np.testing.assert_array_equal(found, whole)


@pytest.mark.slow
def test_what_a_feature_server_says_is_answered_as_the_training_row_of_that_moment(
    published: Published, address: str, data_tools: Path, tmp_path: Path
) -> None:
    """From a carrier, a flight number and a departure to the probability of the row that training would have had."""
    store = Store(tmp_path, data_tools)
    ingest(store, made_up.write_year(tmp_path / "raw"))
    rows = pd.read_parquet(store.interim / "departures.parquet")
    rows = rows[(rows["departure"].dt.month >= 10) & (rows["departure"].dt.hour > 12)].iloc[[0, 40, 300]]
    with running(store, build=True) as up, FeatureServer(up.url, timeout_s=30) as features:
        joined = pd.read_parquet(store.data / "processed" / "flights" / "departures.parquet").loc[rows.index]
        entities = Entities.of_release(published.directory, features)
        for index, row in rows.iterrows():
            up.materialize(row["departure_utc"].isoformat())
            asked = {name: row[name] for name in ("carrier", "flight", "origin", "destination")}
            filled = entities.fill([{**asked, "departure": row["departure"].isoformat()}])
            assert filled.instead == ({},)
            known = flights_data.asked(joined.loc[[index]])
            assert not any(np.isnan(known[name]).any() for name in DELAYS)
            for name in (*DELAYS, *WEATHER):
                np.testing.assert_array_equal(filled.inputs[name], known[name], err_msg=name)
            with Client(f"grpc://{address}") as client:
                online = client.infer("flights", filled.inputs)["probability"]
                offline = client.infer("flights", {**known, "duration": filled.inputs["duration"]})["probability"]
            np.testing.assert_array_equal(online, offline)
        assert {why for _, why in features.counts} == {""}
