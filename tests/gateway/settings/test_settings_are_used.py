"""A setting that nothing reads would be a promise that nobody keeps."""

import re

import pytest
from pydantic import BaseModel

from contracts import layout
from gateway.settings.schema import Settings

CODE = "\n".join(
    path.read_text() for path in (layout.ROOT / "gateway").rglob("*.py") if path.parent.name != "settings"
)  # fmt: skip
NAMES = [
    f"{section}.{name}"
    for section, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    for name in field.annotation.model_fields
]


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_is_read_somewhere(name: str) -> None:
    section, _, own = name.partition(".")
    if section == "quota" and re.search(r"_(short|long|day)$", own):
        own = section  # limits are taken as a whole
    assert re.search(rf"\.{own}\b", CODE), f"nothing reads {name}"
