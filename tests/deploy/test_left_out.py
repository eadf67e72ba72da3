"""What has not been released is not served, and neither is what needs it; everything else is, and all of it is said."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.errors import RepositoryError
from deploy.served import inside, missing, unsealed
from deploy.served.private import PrivateDirectory
from deploy.triton import checks, released
from deploy.triton.arguments import tritonserver_command
from deploy.triton.control import ModelVersion
from deploy.triton.environment import Triton
from deploy.triton.settings import Settings
from tests.conftest import FAMILY, Workspace, free_ports, port_options
from tests.deploy.conftest import write_model
from tests.deploy.upgrades import code
from training import families


def model(root: Path, name: str, *, version: str | None = None, more: str = "") -> Path:
    """A model with a configuration and, if `version` names a file of it, a version 1."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "python"\n{more}\n')
    if version:
        (folder / "1").mkdir()
        (folder / "1" / version).touch()
    return folder


def ensemble(root: Path, name: str, *steps: str, family: str | None = None) -> Path:
    scheduling = " ".join(f'step {{ model_name: "{step}" model_version: -1 }}' for step in steps)
    parameter = f'parameters {{ key: "family" value: {{ string_value: "{family}" }} }}' if family else ""
    folder = model(root, name, version="README", more=f"{parameter}\nensemble_scheduling {{ {scheduling} }}")
    config = (folder / "config.pbtxt").read_text().replace('backend: "python"', 'platform: "ensemble"')
    (folder / "config.pbtxt").write_text(config)
    return folder


def said(root: Path) -> dict[str, set[str]]:
    return {str(group): set(group.models) for group in released.left_out(root)}


def test_where_everything_has_a_version_nothing_is_left_out(tmp_path: Path) -> None:
    model(tmp_path, "before", version="model.py")
    model(tmp_path, "network", version="model.onnx")
    ensemble(tmp_path, "whole", "before", "network")
    assert said(tmp_path) == {}


def test_an_ensemble_goes_with_its_network_and_its_steps_with_it(tmp_path: Path) -> None:
    model(tmp_path, "before", version="model.py")
    model(tmp_path, "network")
    ensemble(tmp_path, "whole", "before", "network", family="shirts")
    model(tmp_path, "other", version="model.onnx")
    line = "whole is not served: no version of network is published — python -m export shirts"
    assert said(tmp_path) == {line: {"whole", "before", "network"}}


def test_a_step_that_another_ensemble_uses_stays(tmp_path: Path) -> None:
    model(tmp_path, "before", version="model.py")
    model(tmp_path, "network")
    model(tmp_path, "old", version="model.onnx")
    ensemble(tmp_path, "new_one", "before", "network")
    ensemble(tmp_path, "old_one", "before", "old")
    assert said(tmp_path) == {"new_one is not served: no version of network is published": {"new_one", "network"}}


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx", "model.sm90.plan"])
def test_a_network_that_is_released_stays_whatever_becomes_of_its_ensemble(tmp_path: Path, file: str) -> None:
    model(tmp_path, "found", version=file)
    model(tmp_path, "named")
    ensemble(tmp_path, "both", "found", "named")
    assert said(tmp_path) == {"both is not served: no version of named is published": {"both", "named"}}


def test_an_ensemble_of_an_ensemble_goes_too_and_they_are_one_group(tmp_path: Path) -> None:
    model(tmp_path, "network")
    ensemble(tmp_path, "inner", "network", family="shirts")
    ensemble(tmp_path, "outer", "inner")
    model(tmp_path, "other", version="model.py")
    line = "outer is not served: no version of network is published — python -m export shirts"
    assert said(tmp_path) == {line: {"outer", "inner", "network"}}


def test_a_model_by_itself_is_named_and_one_whose_versions_are_parked_has_another_remedy(tmp_path: Path) -> None:
    model(tmp_path, "alone")
    parked = model(tmp_path, "parked", version="model.onnx")
    (parked / "1").rename(parked / ".parked-1")
    model(tmp_path, "other", version="model.py")
    assert said(tmp_path) == {
        "alone is not served: no version of it is published": {"alone"},
        "parked is not served: every version of parked is parked — python -m deploy promote parked": {"parked"},
    }


def test_a_version_that_is_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    (model(tmp_path, "cached") / "1").symlink_to("/mnt/gone")
    model(tmp_path, "other", version="model.py")
    [group] = released.left_out(tmp_path)
    assert group.failed, "it was to be served"
    told = "cached/1 is a link to /mnt/gone, which leads nowhere"
    assert str(group) == f"cached is not served: {told} — python -m deploy reload cached"


def test_what_failed_is_named_with_its_reason_and_all_that_needs_it_goes_with_it(tmp_path: Path) -> None:
    model(tmp_path, "before", version="model.py")
    model(tmp_path, "network", version="model.onnx")
    ensemble(tmp_path, "whole", "before", "network", family="shirts")
    model(tmp_path, "other", version="model.onnx")
    model(tmp_path, "named")
    failed, unreleased = sorted(
        released.left_out(tmp_path, failed={"network": "version 1: broken", "gone": "its folder was removed"}),
        key=lambda group: not group.failed,
    )
    assert str(failed) == "whole is not served: network: version 1: broken — python -m deploy reload network"
    assert set(failed.models) == {"whole", "before", "network"}
    assert str(unreleased) == "named is not served: no version of it is published" and not unreleased.failed
    served = ModelVersion("before", 1, "READY", "")
    index = [served, ModelVersion("network", 1, "UNAVAILABLE", "unloaded"), ModelVersion("whole", 0, "UNAVAILABLE", "")]
    assert released.without(index, [failed, unreleased]) == [served]


def test_a_step_that_only_the_release_has_is_left_out_with_what_needs_it(tmp_path: Path) -> None:
    """Git has it no more, or two releases share it. A model by itself that was removed is missed by nobody."""
    root, served = tmp_path / "repository", tmp_path / "served"
    for place in (root, served):
        model(place, "network", version="model.onnx")
        ensemble(place, "whole", "sealed", "network")
    model(served, "sealed", version="model.py")
    model(served, "removed", version="model.py")
    (served / "sealed" / ".release").write_text("network")
    assert missing.left_out(root, served, None, {}) == []
    [group] = missing.left_out(root, served, None, {"sealed": "it crashed", "removed": "it hung"})
    assert set(group.models) == {"whole", "sealed"} and group.failed
    assert str(group) == "whole is not served: sealed: it crashed — python -m deploy reload whole"
    assert missing.left_out(root, served, None, {"network": "x"}) == released.left_out(root, None, {"network": "x"})


def test_who_looks_while_the_servers_copy_is_made_anew_sees_what_there_is(tmp_path: Path) -> None:
    """As `deploy status` does in the moment in which a server that crashed is started again."""
    copy = PrivateDirectory(tmp_path, None)

    def make_anew() -> None:
        for _ in range(200):
            copy.empty()
            for name in ("one", "two", "three"):
                write_model(copy.repository, name)

    with ThreadPoolExecutor(1) as other:
        made = other.submit(make_anew)
        while not made.done():
            out = missing.left_out(tmp_path / "root", copy.repository, None, {"one": "it hung"})
            assert released.names(out) <= {"one"}
            assert {*unsealed.names(copy.repository)} <= {"one", "two", "three"}
            assert inside.run_in(copy.repository) == {}
    made.result()
    assert unsealed.names(copy.repository) == ["one", "three", "two"]


def test_ensembles_above_come_behind_their_steps(tmp_path: Path) -> None:
    for name in ("step", "other"):
        model(tmp_path, name, version="model.py")
    ensemble(tmp_path, "a_inner", "step", "other")
    ensemble(tmp_path, "a_first", "a_inner")
    assert released.with_all_above(tmp_path, {"step"}, None) == ["step", "a_inner", "a_first"]
    assert released.with_all_above(tmp_path, set(), None) == []


def test_ensembles_that_go_in_a_circle_are_looked_at_once(tmp_path: Path) -> None:
    model(tmp_path, "network")
    ensemble(tmp_path, "one", "other", "network")
    ensemble(tmp_path, "other", "one")
    ensemble(tmp_path, "above", "one")
    assert {name for group in said(tmp_path).values() for name in group} == {"above", "one", "other", "network"}


def test_a_configuration_that_is_none_is_left_to_the_server_to_complain_of(tmp_path: Path) -> None:
    (model(tmp_path, "broken", version="model.py") / "config.pbtxt").write_text("no configuration {")
    model(tmp_path, "alone")
    assert said(tmp_path) == {"alone is not served: no version of it is published": {"alone"}}


def test_the_server_is_told_which_models_to_load(tmp_path: Path) -> None:
    model(tmp_path, "alone")
    model(tmp_path, "other", version="model.py")
    (tmp_path / "common").mkdir()  # what several models import
    key = tmp_path / ".key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    triton = Triton(Path("tritonserver"), (), {}, native=False)
    settings = Settings(repository=tmp_path, admin_key_file=key)

    def loaded(left_out: set[str]) -> list[str]:
        command = tritonserver_command(triton, settings, "shm", left_out)
        return [str(word) for word in command if str(word).startswith("--load-model")]

    assert loaded(set()) == ["--load-model=alone", "--load-model=other"]
    assert loaded({"alone"}) == ["--load-model=other"]


def test_a_model_without_a_configuration_is_named_and_a_folder_that_is_no_model_is_not(tmp_path: Path) -> None:
    model(tmp_path, "other", version="model.py")
    (tmp_path / "guessed" / "1").mkdir(parents=True)
    for folder in ("common", ".git"):
        (tmp_path / folder).mkdir()
    http, grpc, metrics = free_ports()
    settings = Settings(tmp_path, http_port=http, grpc_port=grpc, metrics_port=metrics, strict=False)
    refused = checks.before_start(settings)
    assert refused.keys() == {"guessed"}
    assert "it has no config.pbtxt" in refused["guessed"]


def test_only_what_was_never_loaded_is_taken_from_the_index(tmp_path: Path) -> None:
    model(tmp_path, "alone")
    model(tmp_path, "other", version="model.py")
    groups = released.left_out(tmp_path)
    never = ModelVersion("alone", 0, "UNAVAILABLE", "")
    others = [
        ModelVersion("alone", 1, "READY", ""),  # its files are gone, and it goes on serving
        ModelVersion("alone", 1, "UNAVAILABLE", "it broke"),
        ModelVersion("other", 0, "UNAVAILABLE", ""),
    ]
    assert released.without([never, *others], groups) == others


def test_the_repository_of_git_leaves_out_every_family_and_says_how_to_release_it(workspace: Workspace) -> None:
    models = [folder.name for folder in workspace.repository.iterdir()]
    write_model(workspace.repository, "other")
    expected = {}
    for family in families.FAMILIES:
        network = families.spec(family).model
        line = f"{family} is not served: no version of {network} is published — python -m export {family}"
        expected[line] = {model for model in models if model.partition("_")[0] == family}
    assert said(workspace.repository) == expected
    with pytest.raises(RepositoryError, match="is no model configuration"):
        (workspace.repository / FAMILY / "config.pbtxt").write_text("none {")
        released.config(workspace.repository / FAMILY, None)


@pytest.mark.heavy
def test_a_server_without_it_is_ready_says_so_and_serves_it_once_it_is_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_model(workspace.repository, "other", code(1))
    write_model(workspace.repository, "step", code(1), max_batch_size=4)
    version = write_model(workspace.repository, "network", code(1), max_batch_size=4)
    away = version.rename(tmp_path / "not yet")
    whole = ensemble(workspace.repository, "whole", family="shirts")
    (whole / "config.pbtxt").write_text(WHOLE)
    line = "whole is not served: no version of network is published — python -m export shirts"
    up = ("deploy", "up", "--detach", "--repository", workspace.repository, *port_options(free_ports()))
    try:
        assert line in workspace.must(*up)
        status = workspace.run("deploy", "status", "--json")
        found = json.loads(status.stdout)
        assert status.returncode == 0 and found["ready"]
        assert [(m["name"], m["state"]) for m in found["models"]] == [("other", "READY")]
        [left] = found["left_out"]
        assert left["name"] == "whole" and set(left["models"]) == {"whole", "step", "network"}
        assert left["command"] == "python -m export shirts"
        assert line in re.sub(r"\s+", " ", workspace.must("deploy", "status"))
        assert line in workspace.must("deploy", "reload"), "it is left out by a reload, too"
        refused = workspace.run("deploy", "reload", "network")
        assert refused.returncode == 1 and "network cannot be loaded: no version of network" in refused.stderr
        assert "python -m export shirts" in refused.stderr

        away.rename(version)
        [since] = json.loads(workspace.must("deploy", "status", "--json"))["left_out"]
        assert set(since["models"]) == {"whole", "step", "network"}
        assert since["command"] == "python -m deploy reload"
        workspace.must("deploy", "reload")
        after = json.loads(workspace.must("deploy", "status", "--json"))
        assert after["ready"] and after["left_out"] == []
        states = {m["name"]: (m["version"], m["state"]) for m in after["models"]}
        assert states == dict.fromkeys(["other", "step", "network", "whole"], (1, "READY"))
    finally:
        workspace.down()


WHOLE = """
name: "whole"
platform: "ensemble"
max_batch_size: 4
parameters { key: "family" value: { string_value: "shirts" } }
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "step" model_version: -1
      input_map { key: "IN" value: "IN" }
      output_map { key: "OUT" value: "BETWEEN" }
    },
    {
      model_name: "network" model_version: -1
      input_map { key: "IN" value: "BETWEEN" }
      output_map { key: "OUT" value: "OUT" }
    }
  ]
}
"""
