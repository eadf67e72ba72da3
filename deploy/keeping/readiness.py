"""Make `/v2/health/ready` say the truth of what is served, without a restart.

Triton 2.51 keeps a first version that did not load in mind, and calls itself not ready for ever, also after its files
are gone, until that very version has been loaded and unloaded. So a stand-in of that name is: an ensemble over a model
which is served, for some milliseconds.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from deploy.errors import ModelError
from deploy.triton.control import Control, ModelVersion

_PATIENCE_S = 10.0
_OF_A_TENSOR = ("name", "data_type", "dims")


def settle(control: Control, models: Collection[str]) -> None:
    """Make the server forget that versions of these models, none of which serves, did not load.

    Raises:
        ModelError: that could not be done; readiness stays false.
    """
    found = control.models()
    failed = {name: [v.version for v in found if v.name == name and v.failed and v.version] for name in models}
    for name, versions in failed.items():
        if versions:
            _stand_in(control, name, versions, found)


def _stand_in(control: Control, name: str, versions: Sequence[int], found: Sequence[ModelVersion]) -> None:
    files = {f"file:{version}/stand_in": b"" for version in versions}
    refused: ModelError | None = None
    for below in sorted({v.name for v in found if v.state == "READY"}):
        try:
            control.load(name, _ensemble(name, versions, control.config(below)), files=files)
        except ModelError as error:  # of that model none can be made
            refused = error
            continue
        control.unload(name)
        _wait_until_gone(control, name)
        return
    raise ModelError(f"the server stays not ready because of {name}, which did not load") from refused


def _ensemble(name: str, versions: Sequence[int], below: Mapping[str, Any]) -> dict[str, Any]:
    tensors = {side: [{key: t[key] for key in _OF_A_TENSOR} for t in below[side]] for side in ("input", "output")}
    maps = {f"{side}_map": {t["name"]: f"{side}_{t['name']}" for t in found} for side, found in tensors.items()}
    outer = {side: [{**t, "name": f"{side}_{t['name']}"} for t in found] for side, found in tensors.items()}
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": below.get("max_batch_size", 0),
        **outer,
        "version_policy": {"specific": {"versions": list(versions)}},
        "ensemble_scheduling": {"step": [{"model_name": below["name"], "model_version": -1, **maps}]},
    }


def _wait_until_gone(control: Control, name: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while any(v.name == name and v.state in ("READY", "UNLOADING") for v in control.models()):
        if time.monotonic() > until:
            raise ModelError(f"{name} is not unloaded after {_PATIENCE_S:.0f} s")
        time.sleep(0.02)
