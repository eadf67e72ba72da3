"""The commands: up with its checks, keys here and from a laptop."""

import json
from pathlib import Path

import pytest

from gateway import limits
from gateway.__main__ import main
from gateway.errors import KeysError, SettingsError
from gateway.running.up import check
from gateway.settings.schema import Settings
from tests.gateway.whole import Whole


def test_keys_are_administered_from_a_laptop_through_the_admin_api(
    gateway: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin, reader = gateway.key("keys:admin"), gateway.key("*:read")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "ARTIFACTS_DIR": str(tmp_path / "laptop"), "GATEWAY_ADMIN__URL": gateway.url, "GATEWAY_ADMIN__KEY": admin
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    def keys(*words: str) -> str:
        assert main(["keys", *words]) == 0
        return capsys.readouterr().out

    made = json.loads(keys("create", "from afar", "--expires", "1d", "--json"))
    assert made["secret"].startswith("gk_") and made["expires"]
    [listed] = [key for key in json.loads(keys("list", "--json"))["keys"] if key["id"] == made["id"]]
    assert "secret" not in listed and {*made} == {*listed, "secret"}
    assert made["id"] in keys("list")
    assert json.loads(keys("rotate", made["id"], "--json"))["secret"] != made["secret"]
    assert "Revoked" in keys("revoke", made["id"])
    assert not (tmp_path / "laptop").exists()  # the store was not asked
    monkeypatch.setenv("GATEWAY_ADMIN__KEY", reader)
    with pytest.raises(KeysError, match="Not allowed"):
        main(["keys", "list"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"listen": {"workers": 2}}, "2 workers would each count quotas by themselves"),
        ({"listen": {"certificate": "x.pem"}}, "listen.certificate and listen.key belong together"),
        ({"listen": {"host": "0.0.0.0"}, "keys": {"required": False}}, "keys.required is false, and 0.0.0.0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told.replace(".", r"\.")):
        check(Settings(**settings))  # type: ignore[arg-type]


def test_the_help_names_every_limit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "create", "--help"])
    said = capsys.readouterr().out
    assert [name for name in limits.NAMES if name not in said] == []
