"""What Triton 26.07 (2.71) would load and be started with: known here without it, and without a GPU."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts import layout
from deploy.devices import chosen
from deploy.triton import arguments
from deploy.triton.environment import Triton
from deploy.triton.launch import Secret
from deploy.triton.settings import Settings, Tls, Traces
from export.proof.contract import CONFIGS
from export.release import configs
from tests.conftest import FAMILY, MODEL
from tests.deploy.triton_rules import faults
from tests.export.test_configs import PRICE, SPEECH, spec
from tests.tracked import MODEL_REPOSITORY, tracked_models

# Of its command_line_parser.cc.
OPTIONS = frozenset(Path(__file__).with_name("options-2.71.txt").read_text().split())


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def of_git(file: str) -> dict[str, Any]:
    """The models of the repository with their configurations for the GPU, or for the CPU where they have such."""
    return {
        path.parent.name: parsed(((path.parent / file) if (path.parent / file).exists() else path).read_text())
        for path in tracked_models("*/config.pbtxt")
    }


@pytest.mark.parametrize("file", CONFIGS)
def test_every_configuration_in_git_is_one_that_triton_loads(file: str) -> None:
    models = of_git(file)
    assert len(models) >= 4 and any(
        model.platform == "ensemble" or model.backend == "inprocess" for model in models.values()
    )
    assert {name: faults(model, models) for name, model in models.items()} == {name: [] for name in models}
    assert any(model.optimization.cuda.graph_spec for model in models.values()) is (file == CONFIGS[0])


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize("brought", [spec(4, 32), spec(1, 1), SPEECH, PRICE], ids=lambda s: s.model)
def test_every_configuration_that_an_export_writes_is_one_that_triton_loads(
    tmp_path: Path, brought: Any, file: str
) -> None:
    configs.write_configs(tmp_path, brought)
    assert faults(parsed((tmp_path / file).read_text())) == []


GPU = (MODEL_REPOSITORY / MODEL / "config.pbtxt").read_text()
ENSEMBLE = (MODEL_REPOSITORY / FAMILY / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("config", "planted", "instead", "told"),
    [
        (GPU, "preferred_batch_size: [ 16, 64 ]", "preferred_batch_size: [ 16, 65 ]", "preferred_batch_size 65"),
        (GPU, "max_batch_size: 64", "max_batch_size: 32", "a graph has batch size 64, of 1 to 32"),
        (GPU, "graph_lower_bound { batch_size: 17", "graph_lower_bound { batch_size: 65", "batch size 65"),
        (GPU, 'batch_size: 2 input { key: "pixels"', 'batch_size: 2 input { key: "pixel"', "is None for 'pixels'"),
        (GPU, "    graphs: true", "", "graph_spec without graphs"),
        (GPU, "dims: [ 1, 28, 28 ] random_data: true", "dims: [ 1, 28, -1 ] random_data: true", "dims [1, 28, -1]"),
        (GPU, "random_data: true", "", "has no data for 'pixels'"),
        (GPU, "data_type: TYPE_UINT8 dims: [ 1, 28, 28 ] random", "data_type: TYPE_INT8 dims: [ 1, 28, 28 ] random",
         "another type for 'pixels'"),
        (GPU, "kind: KIND_GPU count: 2", "kind: KIND_CPU count: 2", "TensorRT's instances are on a GPU"),
        (GPU, "kind: KIND_GPU count: 2", 'kind: KIND_GPU profile: "first"', "there is no optimization profile"),
        (GPU, 'platform: "tensorrt_plan"', "", "neither a backend nor a platform"),
        (GPU, "dims: [ 10 ]", "dims: [ 0 ]", "'logits' has dims [0]"),
        (ENSEMBLE, "ensemble_scheduling {", "optimization { } ensemble_scheduling {", "has no optimization"),
        (ENSEMBLE, "ensemble_scheduling {", "instance_group { } ensemble_scheduling {", "has no instance_group"),
    ],
    ids=lambda text: "" if text in (GPU, ENSEMBLE) else None,
)  # fmt: skip
def test_each_rule_finds_what_was_planted(config: str, planted: str, instead: str, told: str) -> None:
    assert faults(parsed(config)) == [] and planted in config
    assert told in "; ".join(faults(parsed(config.replace(planted, instead, 1))))


def test_an_ensemble_is_held_to_its_steps_and_to_the_tensors_between_them() -> None:
    models = of_git(CONFIGS[0])

    def told(change: Callable[[Any], object]) -> str:
        ensemble = parsed(ENSEMBLE)
        change(ensemble)
        return "; ".join(faults(ensemble, models))

    first = 0
    assert told(lambda e: None) == ""
    assert "its batches of 640 are more than" in told(lambda e: setattr(e, "max_batch_size", 640))
    named = "there is no model 'none'"
    assert named in told(lambda e: setattr(e.ensemble_scheduling.step[first], "model_name", "none"))
    assert "is not made" in told(lambda e: e.ensemble_scheduling.step[first].output_map.clear())
    assert "is not used" in told(lambda e: e.input.add(name="more", data_type=2, dims=[1]))
    assert "is given" in told(lambda e: e.ensemble_scheduling.step[first].input_map.update({"more": "image"}))


def options_of(command: list[str | Secret]) -> set[str]:
    words = [word.flag if isinstance(word, Secret) else word for word in command[1:]]
    return {word.removeprefix("--").partition("=")[0] for word in words}


def test_whatever_the_settings_every_option_is_one_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that it does not know ends it."""
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    key.chmod(0o600)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    monkeypatch.setattr(arguments, "has_option", lambda triton, option: option in OPTIONS)
    monkeypatch.setattr(chosen, "gpus", lambda: ("NVIDIA H100 (9.0)", ""))
    least = Settings(repository=tmp_path, admin_key_file=key)
    most = Settings(
        repository=tmp_path,
        admin_key_file=key,
        device="cpu",
        tls=Tls(key, key, key),
        traces=Traces("http://localhost:4318/v1/traces"),
        cache_bytes=1,
        http_max_bytes=1,
        allow_client_shm=True,
        rate_limit=True,
        auto_complete=True,
        log_verbose=1,
    )
    one_sided = replace(least, tls=Tls(key, key))
    found = [
        options_of(arguments.tritonserver_command(Triton(tmp_path), settings, "triton_1_"))
        for settings in (least, most, one_sided)
    ]
    assert all(options <= OPTIONS for options in found), [options - OPTIONS for options in found]
    assert "model-config-name" in found[1] - found[0], "on a GPU it is config.pbtxt"
    assert {"allow-client-shm", "http-max-input-size", "cache-config"} <= found[1]
    source = (layout.ROOT / "deploy" / "triton" / "arguments.py").read_text()
    written = set(re.findall(r'"--([a-z][a-z0-9-]+)[="]', source))
    assert written and written <= set().union(*found), "one is given by none of the settings here"
