"""Settings: files, the environment, and where each value comes from."""

import json
from pathlib import Path

import pytest

from contracts import layout
from gateway.__main__ import main
from gateway.errors import SettingsError
from gateway.settings import levels, sources

SECRET = "redis://:hunter2@localhost:6379"


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the test's own, and no variables of the developer's."""
    for name in list(sources.os.environ):
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.yaml"
    file.write_text("limits: {body_bytes: 4096}\nenvironments:\n  staging: {limits: {body_bytes: 8192}}\n")
    monkeypatch.setenv(sources.FILE_VARIABLE, str(file))
    return file


def test_the_environment_stands_over_env_over_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> tuple[int, str]:
        found = sources.read(secrets=tmp_path / "secrets")
        return found.settings.limits.body_bytes, found.origin("limits.body_bytes")

    assert body() == (4096, "settings.yaml")
    monkeypatch.setenv("GATEWAY_ENVIRONMENT", "staging")
    assert body() == (8192, "settings.yaml, staging")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "GATEWAY_LIMITS__BODY_BYTES").write_text("10000")
    assert body() == (10_000, str(tmp_path / "secrets"))
    (tmp_path / ".env").write_text("GATEWAY_LIMITS__BODY_BYTES=20000\n")
    assert body() == (20_000, ".env")
    monkeypatch.setenv("GATEWAY_LIMITS__BODY_BYTES", "30000")
    assert body() == (30_000, "environment")
    assert sources.read().origin("limits.drain_s") == "default"


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("GATEWAY_LIMITS__BODY_BITES", "is GATEWAY_LIMITS__BODY_BYTES meant?"),
        ("GATEWAY_LIMIT__BODY_BYTES", "GATEWAY_LIMIT__BODY_BYTES, and there is no such setting"),
        ("GATEWAY_NOTHING", "there is no such setting"),
    ],
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest(
    variable: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=r"the environment has") as error:
        sources.read()
    assert told in str(error.value)


def test_an_unknown_key_of_env_or_of_the_file_is_an_error(tmp_path: Path, nothing_else: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_LIMITS__BODI_BYTES=1\n")
    with pytest.raises(SettingsError, match=r"\.env has GATEWAY_LIMITS__BODI_BYTES"):
        sources.read()
    (tmp_path / ".env").write_text("SOMETHING_ELSE=1\n")
    sources.read()
    for text in ("limits: {body_bites: 1}", "limmits: {}", "environments: {production: {limits: {body_bites: 1}}}"):
        nothing_else.write_text(text)
        with pytest.raises(SettingsError, match=r"settings.yaml.* has lim.*there is no such setting"):
            sources.read()


@pytest.mark.parametrize("text", ["- a list", "limits: [", "environments: 3", "limits: 5", "\0"])
def test_a_file_that_is_none_is_an_error_and_no_traceback(text: str, nothing_else: Path) -> None:
    nothing_else.write_text(text)
    with pytest.raises(SettingsError):
        sources.read()


def test_a_wrong_value_is_named_with_its_place_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_LIMITS__BODY_BYTES", "lots")
    with pytest.raises(SettingsError) as error:
        sources.read()
    assert "limits.body_bytes, from environment" in str(error.value)
    assert "GATEWAY_LIMITS__BODY_BYTES" in str(error.value)


def test_the_quota_of_keys_that_have_none_is_written_as_theirs_and_checked_with_the_rest(nothing_else: Path) -> None:
    nothing_else.write_text("quota: {requests_short: 200/second, inferences_day: 1000000}")
    assert [window.amount for window in sources.read().settings.quota.windows] == [200, 1_000_000]
    nothing_else.write_text("quota: {requests_short: 200 a second}")
    with pytest.raises(
        SettingsError, match=r"quota\.requests_short, from settings\.yaml: .*'200 a second' is no limit"
    ):
        sources.read()


def test_an_environment_that_the_file_does_not_have_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ENVIRONMENT", "stagging")
    with pytest.raises(SettingsError, match="has no environment 'stagging'"):
        sources.read()


def test_lists_are_written_with_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TRITON__ENDPOINTS", "http://a:8000, unix:/run/triton.sock")
    assert sources.read().settings.triton.endpoints == ("http://a:8000", "unix:/run/triton.sock")


def test_secrets_are_masked_wherever_settings_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_QUOTA__STORAGE", SECRET)
    monkeypatch.setenv("GATEWAY_STORE__URL", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("GATEWAY_ADMIN__KEY", "hunter2")
    read = sources.read()
    assert read.settings.quota.storage.get_secret_value() == SECRET
    assert main(["settings"]) == 0 and main(["settings", "--json"]) == 0
    told = capsys.readouterr().out
    assert "hunter2" not in told + repr(read.settings) + str(read.settings.model_dump())
    shown = json.loads(told[told.index("{") :])
    assert shown["quota.storage"] == {"value": "********", "from": "environment"}
    assert shown["limits.body_bytes"] == {"value": 4096, "from": "settings.yaml"}


def test_what_env_example_names_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each line, with the mark of a comment taken off, is read; so no name in it is unknown."""
    lines = (layout.ROOT / ".env.example").read_text().splitlines()
    given = [line.removeprefix("#") for line in lines if line.removeprefix("#").startswith("GATEWAY_")]
    assert len(given) >= 8
    (tmp_path / ".env").write_text("\n".join(line for line in given if "ENVIRONMENT" not in line))
    settings = sources.read().settings
    assert settings.listen.workers == 2 and settings.oidc.audience == "models"


def test_the_files_in_git_hold_for_every_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sources.FILE_VARIABLE)
    for environment in ("production", "staging", "development", "testing"):
        monkeypatch.setenv("GATEWAY_ENVIRONMENT", environment)
        assert sources.read().settings.environment == environment
        assert levels.read(environment)["gateway"] > 0
    assert levels.read("development")["gateway"] < levels.read("production")["gateway"]
    assert levels.read("development", "error")["gateway"] > levels.read("production")["gateway"]
