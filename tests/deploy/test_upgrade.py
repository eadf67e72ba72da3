"""What serves changes when it is told to and the new version is good, and else goes on as it was."""

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts import golden, layout, manifest, repository
from contracts.golden import GoldenRequest
from deploy.drill.traffic import Traffic, tritonclient_connection
from deploy.errors import ChangeError, RepositoryError
from deploy.versions import choosing, ensembles
from deploy.versions.change import VersionChange, summary
from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy.conftest import write_model
from tests.deploy.upgrades import BROKEN, Site, code, gated, on_disk, publish, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    workspace = Workspace(tmp_path_factory.mktemp("upgrade"))
    write_model(workspace.repository, "first")
    key = workspace.root / "admin.key"
    key.touch(mode=0o600)
    key.write_text("k" * 32)
    options = [
        "--repository",
        workspace.repository,
        "--admin-key-file",
        key,
        "--drain",
        "5",
        *port_options(free_ports()),
    ]
    workspace.must("deploy", "up", "--detach", *options)
    yield Site(workspace, running(workspace))
    workspace.down()


def test_a_new_version_answers_and_the_one_before_can_still_be_asked_for(site: Site) -> None:
    model = site.model("scaler")
    site.ensemble("chain", "scaler")
    site.reload("chain")
    publish(model, code(2))
    [change] = site.reload("scaler")
    assert (change.before, change.after, str(change)) == (1, 2, "scaler: version 1 → 2")
    assert site.answer("scaler") == site.answer("chain") == 2
    assert site.answer("scaler", version="1") == 1


def test_without_names_every_model_is_looked_at_and_ensembles_last(site: Site) -> None:
    site.model("zulu")
    site.ensemble("alpha", "zulu")
    site.reload("alpha")
    publish(site.root / "zulu", code(2))
    changes = site.reload()
    assert {change.model for change in changes} == {path.name for path in site.root.iterdir()}
    assert next(change for change in changes if change.model == "zulu").after == 2
    names = [change.model for change in changes]
    assert names.index("alpha") > names.index("zulu")
    assert "Next: python -m deploy rollback zulu --to 1" in summary(changes)


def test_a_bad_version_never_serves_and_is_parked(site: Site) -> None:
    """A restart would load all of the versions that the policy asks for, or none."""
    model = site.model("refused", versions=2)
    publish(model, code(3, BROKEN))
    with pytest.raises(ChangeError, match="no weights") as failure:
        site.reload("refused")
    assert "version 2 goes on serving" in str(failure.value)
    assert "python -m deploy promote refused 3" in str(failure.value)
    assert on_disk(model) == ([1, 2], [3])
    assert site.answer("refused") == 2
    assert site.answer("refused", version="1") == 1
    assert site.healthy(), "Triton keeps the failed version in mind"


def test_a_bad_version_that_somebody_removes_meanwhile_is_told_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = site.model("vanishing")
    publish(model, code(2, BROKEN))

    refuse = repository.refuse

    def too_late(directory: Path, version: int, reason: str) -> None:
        shutil.rmtree(directory / str(version))
        refuse(directory, version, reason)

    monkeypatch.setattr(repository, "refuse", too_late)
    with pytest.raises(ChangeError, match="vanishing: version 1 goes on serving") as failure:
        site.reload("vanishing")
    assert "no weights" in str(failure.value) and "somebody has removed it meanwhile" in str(failure.value)
    assert site.answer("vanishing") == 1.0 and on_disk(model) == ([1], [])


def test_a_parked_version_that_was_mended_is_promoted(site: Site) -> None:
    model = site.model("mended")
    publish(model, code(2, BROKEN))
    with pytest.raises(ChangeError):
        site.reload("mended")
    with pytest.raises(ChangeError, match="nothing has changed") as failure:
        choosing.promote(site.server, site.root, "mended", None)
    assert "no weights" in str(failure.value)
    assert on_disk(model) == ([1], [2])
    assert site.answer("mended") == 1
    assert site.healthy()
    (repository.directory(model, 2) / "model.py").write_text(code(2))
    change = choosing.promote(site.server, site.root, "mended", None)
    assert (change.before, change.after) == (1, 2)
    assert on_disk(model) == ([1, 2], [])
    assert site.answer("mended") == 2


def test_roll_back_goes_to_the_version_before_or_to_the_one_named(site: Site) -> None:
    model = site.model("back", versions=4)
    assert choosing.rollback(site.server, site.root, "back", None).after == 3
    assert on_disk(model) == ([1, 2, 3], [4])
    assert site.answer("back") == 3
    assert choosing.rollback(site.server, site.root, "back", 1).after == 1
    assert on_disk(model) == ([1], [2, 3, 4])
    assert site.answer("back") == 1
    with pytest.raises(RepositoryError, match="no version older than 1") as failure:
        choosing.rollback(site.server, site.root, "back", None)
    assert "parked: 2, 3, 4" in str(failure.value)
    assert choosing.promote(site.server, site.root, "back", 3).after == 3
    assert on_disk(model) == ([1, 3], [2, 4])
    assert site.answer("back") == 3
    assert site.healthy()


@pytest.mark.heavy
def test_what_a_roll_back_chose_is_served_after_a_restart(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    model = write_model(workspace.repository, "scaler", code(1), max_batch_size=4).parent
    publish(model, code(2))
    up = ["deploy", "up", "--detach", "--repository", workspace.repository, *port_options(free_ports())]
    workspace.must(*up)
    try:
        assert "scaler: version 2 → 1" in workspace.must(
            "deploy", "rollback", "scaler", "--repository", workspace.repository
        )
        workspace.must("deploy", "down")
        workspace.must(*up)
        status = json.loads(workspace.must("deploy", "status", "--json"))
        assert [m["version"] for m in status["models"] if m["state"] == "READY"] == [1]
    finally:
        workspace.down()


def test_the_same_version_with_other_files_is_served_anew(site: Site) -> None:
    file = site.model("overwritten") / "1" / "model.py"
    file.write_text(code(7.5))
    [change] = site.reload("overwritten")
    assert str(change) == "overwritten: version 1, as before"
    assert site.answer("overwritten") == 7.5


def test_broken_files_of_the_version_that_serves_are_no_reason_to_stop(site: Site) -> None:
    """There is nothing to park: what to say is that a restart would fail."""
    model = site.model("spoilt")
    (model / "1" / "model.py").write_text(code(1, BROKEN))
    with pytest.raises(ChangeError, match="version 1 goes on serving") as failure:
        site.reload("spoilt")
    assert "no weights" in str(failure.value)
    assert "a restart of the server would fail" in str(failure.value)
    assert on_disk(model) == ([1], [])
    assert site.answer("spoilt") == 1
    (model / "1" / "model.py").write_text(code(1))
    site.reload("spoilt")


def test_a_version_that_is_not_what_was_published_is_not_loaded(site: Site, release: Path) -> None:
    model = site.model("tampered")
    with repository.new_version(model) as staged:
        (staged.directory / "model.py").write_text(code(2))
        shutil.copy(release / manifest.FILE_NAME, staged.directory)
    with pytest.raises(ChangeError, match=r"not in the manifest: model\.py"):
        site.reload("tampered")
    assert on_disk(model) == ([1], [2])
    assert site.answer("tampered") == 1


def test_a_step_that_contradicts_its_ensemble_is_not_loaded(site: Site) -> None:
    """Triton would load it, and take the ensemble down without a word."""
    config = site.model("step") / "config.pbtxt"
    site.ensemble("above", "step")
    site.reload("above")
    good = config.read_text()
    for bad, reason in (
        (good.replace("max_batch_size: 4", "max_batch_size: 2"), "max_batch_size 4 is more than step's 2"),
        (good.replace('name: "IN" data_type: TYPE_FP32', 'name: "IN" data_type: TYPE_INT32'), "IN is TYPE_FP32"),
        (good.replace('name: "OUT"', 'name: "RESULT"'), "step has no tensor OUT"),
        (good + "}", "is no model configuration"),
    ):
        config.write_text(bad)
        with pytest.raises(RepositoryError, match=reason):
            site.reload("step")
        assert site.answer("above") == 1
    config.write_text(good)
    site.reload("step")
    assert site.answer("above") == 1


def answering(factor: float) -> GoldenRequest:
    """A golden request for a model that multiplies by that."""
    one = np.ones((1, 1), dtype=np.float32)
    return GoldenRequest("golden", {"IN": one}, {"OUT": factor * one}, {"OUT": 1e-6})


def test_a_version_that_answers_its_golden_requests_wrong_is_parked(site: Site) -> None:
    model = site.model("golden")
    for factor, right in ((2, 2.0), (3, 4.0)):
        with repository.new_version(model) as staged:
            (staged.directory / "model.py").write_text(code(factor))
            golden.write([answering(right)], staged.directory)
        if factor == 2:
            assert [change.after for change in site.reload("golden")] == [2]
            continue
        told = "version 2 goes on serving. golden version 3 gives a wrong answer: OUT is 1 away, 1e-06 at most"
        with pytest.raises(ChangeError, match=rf"{told}\nNote: version 3 served for a moment and is parked"):
            site.reload("golden")
    assert site.answer("golden") == 2
    assert on_disk(model) == ([1, 2], [3])
    with pytest.raises(ChangeError, match=r"golden: nothing has changed. golden version 3 gives a wrong answer"):
        choosing.promote(site.server, site.root, "golden", 3)
    assert site.answer("golden") == 2
    assert site.healthy()


def test_an_ensemble_and_its_steps_change_together(site: Site) -> None:
    """Whichever of them Triton loaded alone, the ensemble would be down until it had the others."""
    model = site.model("inner")
    site.ensemble("outer", "inner")
    site.reload("outer")
    config, above = model / "config.pbtxt", site.root / "outer" / "config.pbtxt"
    sent = [GoldenRequest("outer", {"IN": np.ones((1, 1), dtype=np.float32)}, {})]
    with Traffic(
        {"http": site.server.http, "grpc": site.server.grpc},
        "outer",
        sent,
        connections=2,
        connect=tritonclient_connection,
    ) as traffic:
        config.write_text(config.read_text().replace('name: "IN"', 'name: "X"'))
        above.write_text(above.read_text().replace('key: "IN"', 'key: "X"'))
        (model / "1" / "model.py").write_text(code(1).replace('"IN"', '"X"'))
        site.reload("inner", "outer")
        switched_s = traffic.now_s()
        wait_for(lambda: traffic.answered_since(switched_s))
    errors = [request.error for request in traffic.sent() if request.error]
    assert len(errors) <= 2  # those that were between the ensemble and its step
    assert all("unexpected inference input 'IN'" in error for error in errors)


def test_a_long_load_holds_nobody_up(site: Site, tmp_path: Path) -> None:
    """Asked for over HTTP, it would hold all the connections of one of Triton's threads."""
    file = site.model("long") / "1" / "model.py"
    site.model("busy")
    file.write_text(gated(tmp_path))
    sent = [GoldenRequest("busy", {"IN": np.ones((1, 1), dtype=np.float32)}, {})]
    with (
        ThreadPoolExecutor() as pool,
        Traffic(
            {"http": site.server.http, "grpc": site.server.grpc},
            "busy",
            sent,
            connections=16,
            connect=tritonclient_connection,
        ) as traffic,
    ):
        loading = pool.submit(site.reload, "long")
        try:
            wait_for((tmp_path / "begun").exists)
            began_s = traffic.now_s()
            wait_for(lambda: traffic.answered_since(began_s))
        finally:
            (tmp_path / "open").touch()
        loading.result()
    assert not [request.error for request in traffic.sent() if request.error]


def test_an_ensemble_that_went_down_all_the_same_is_brought_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    config = site.model("lower") / "config.pbtxt"
    site.ensemble("upper", "lower")
    site.reload("upper")
    good = config.read_text()
    config.write_text(good.replace("max_batch_size: 4", "max_batch_size: 2"))
    monkeypatch.setattr(ensembles, "check", lambda *_: None)  # as if it knew nothing of batches
    with pytest.raises(ChangeError, match="upper does not serve any more"):
        site.reload("lower")
    assert site.answer("upper") == 1
    config.write_text(good)
    site.reload("lower")
    assert site.answer("upper") == 1


def test_two_upgrades_at_once_happen_one_after_the_other(site: Site) -> None:
    model = site.model("contended", versions=3)
    changes: list[VersionChange] = []

    def go(to: int) -> None:
        changes.append(choosing.promote(site.server, site.root, "contended", to))

    threads = [threading.Thread(target=go, args=(to,)) for to in (1, 2, 3, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [change.before for change in changes[1:]] == [change.after for change in changes[:-1]]
    assert site.answer("contended") == changes[-1].after == repository.versions(model)[-1]


def promotion_of_a_slow_version(site: Site, name: str, folder: Path) -> "subprocess.Popen[str]":
    """Version 2 is being loaded when this returns, until there is `open` in the folder."""
    model = site.model(name)
    publish(model, gated(folder))
    with repository.locked(model):
        repository.park(model, 2)
    command = site.workspace.command("deploy", "promote", name, "--repository", site.root)
    process = subprocess.Popen(
        command, cwd=layout.ROOT, env=site.workspace.environment, stderr=subprocess.PIPE, text=True
    )
    wait_for((folder / "begun").exists)
    return process


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_promotion_changes_nothing(site: Site, sent: signal.Signals, tmp_path: Path) -> None:
    name = f"interrupted_{sent.name.lower()}"
    with promotion_of_a_slow_version(site, name, tmp_path) as process:
        process.send_signal(sent)
        process.send_signal(sent)  # an impatient second one
        (tmp_path / "open").touch()
        _, stderr = process.communicate()
    assert process.returncode == 128 + sent
    assert "Traceback" not in stderr
    assert on_disk(site.root / name) == ([1], [2])
    assert not (site.root / name / "2").exists()
    assert site.answer(name) == 1
    assert site.healthy()


def test_a_killed_promotion_is_undone_by_the_next_command(site: Site, tmp_path: Path) -> None:
    with promotion_of_a_slow_version(site, "killed", tmp_path) as process:
        process.kill()
        threading.Timer(0.5, (tmp_path / "open").touch).start()  # the next command has to wait for the load
    assert on_disk(site.root / "killed") == ([1], [2])
    site.reload("killed")
    assert not (site.root / "killed" / "2").exists()
    assert site.answer("killed") == 1


def test_without_a_server_the_repository_is_arranged_for_the_next_one(tmp_path: Path) -> None:
    model = write_model(tmp_path, "scaler").parent
    publish(model, code(2))
    assert choosing.rollback(None, tmp_path, "scaler", None).after == 1
    assert on_disk(model) == ([1], [2])
    assert choosing.promote(None, tmp_path, "scaler", None).after == 2
    assert on_disk(model) == ([1, 2], [])


def test_a_server_that_cannot_start_is_helped_by_a_roll_back(site: Site) -> None:
    """It finds it on disk when it is started again."""
    model = site.model("crashing", versions=2)
    [port] = free_ports(1)  # where nobody answers
    assert choosing.rollback(replace(site.server, http_port=port), site.root, "crashing", None).after == 1
    assert on_disk(model) == ([1], [2])


def test_what_is_not_there_is_named_with_what_is(site: Site) -> None:
    site.model("known")
    mistakes: list[tuple[Callable[[], object], str]] = [
        (lambda: site.reload("unknown"), "there is no model unknown"),
        (lambda: choosing.rollback(site.server, site.root, "unknown", None), "known"),
        (lambda: choosing.rollback(site.server, site.root, "known", 9), "python -m deploy promote known 9"),
        (lambda: choosing.promote(site.server, site.root, "known", 9), "known has no version 9"),
    ]
    for mistake, said in mistakes:
        with pytest.raises(RepositoryError, match=said):
            mistake()


def test_versions_that_the_policy_leaves_out_are_not_waited_for(site: Site) -> None:
    model = site.model("chosen", versions=2)
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace("latest { num_versions: 2 }", "specific { versions: [ 1 ] }"))
    assert site.reload("chosen")[0].after == 1
    config.write_text(config.read_text().replace("specific { versions: [ 1 ] }", "all { }"))
    assert site.reload("chosen")[0].after == 2


def test_a_version_that_takes_the_server_down_is_parked_before_the_next_start(site: Site) -> None:
    model = site.model("deadly")
    publish(model, code(2, "import os; os.kill(os.getppid(), 9)"))
    with pytest.raises(ChangeError, match="the server ended"):
        site.reload("deadly")
    assert on_disk(model) == ([1], [2])
    wait_for(site.healthy)
    with pytest.raises(ChangeError, match="nothing has changed"):
        choosing.promote(site.server, site.root, "deadly", 2)
    assert on_disk(model) == ([1], [2])
    wait_for(site.healthy)
    assert site.answer("deadly") == 1
