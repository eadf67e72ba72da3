"""The commands: up with its checks, keys here and from a laptop."""

import json

import pytest

from gateway.errors import SettingsError
from gateway.running.up import check
from gateway.settings.schema import Settings
from tests.gateway.whole import Whole


def test_keys_are_administered_from_a_laptop_through_the_admin_api(gateway: Whole) -> None:
    admin = gateway.key("keys:admin")
    away = {"GATEWAY_ADMIN__URL": gateway.url, "ARTIFACTS_DIR": str(gateway.folder / "laptop")}
    laptop = Whole(gateway.folder, {**gateway.environment, **away, "GATEWAY_ADMIN__KEY": admin}, gateway.process)
    made = json.loads(laptop.command("keys", "create", "from afar", "--expires", "1d", "--json").stdout)
    assert made["secret"].startswith("gk_") and made["expires"]
    assert made["id"] in laptop.command("keys", "list").stdout
    assert "Revoked" in laptop.command("keys", "revoke", made["id"]).stdout
    assert not (gateway.folder / "laptop").exists()  # the store was not asked
    reader = {**laptop.environment, "GATEWAY_ADMIN__KEY": gateway.key("*:read")}
    refused = Whole(gateway.folder, reader, gateway.process)
    done = refused.command("keys", "list")
    assert done.returncode == 1 and "Not allowed" in done.stderr and "Traceback" not in done.stderr


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
