"""A signature is put to nothing that the signer did not make or verify, whoever writes into the repository."""

import dataclasses
import hashlib
import json
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from contracts import manifest, signing
from contracts.errors import ProjectError
from contracts.manifest import Choice, Engine, Gate
from contracts.signing import Signer
from export.proof import plans
from export.release.carried import carry_plans
from export.release.seal import seal
from tests import attackers
from tests.contracts.signers import key_pair
from tests.small_releases import release_of, written

pytestmark = pytest.mark.usefixtures("signing_here")

PLAN = "model.sm90.plan"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"), "ours", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network whose version 1 has a plan, which a release of the same graph may take along."""
    for name in ("VERIFY_KEY", "VERIFY_CHAIN", "VERIFY_IDENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(plans, "server_gate", lambda plan, tensorrt: Gate("it loads", 1, 1, "at least"))
    publish(tmp_path / "net" / "1", 1)
    return tmp_path / "net"


def publish(directory: Path, version: int, plan: str = "as it was proven") -> None:
    written(directory, {PLAN: plan})
    engine = Engine("tensorrt", 1, 1.0, {})
    choices = (Choice(PLAN, "fp32", "the only one", engine, "00"),)
    release = release_of(("net",), version=version, choices=choices, files=manifest.files_of(directory))
    manifest.write(release, directory)


def carry(network: Path, signer: Signer | None) -> tuple[str | None, str]:
    """What the plan in the next version is, and what was said."""
    said: list[str] = []
    directory = written(network / ".staging-9", {"model.onnx": "graph"})
    release = release_of(("net",), version=9)
    carry_plans(release, network, directory, said.append, profile={}, server_tensorrt="10", signer=signer)
    plan = directory / PLAN
    return plan.read_text() if plan.is_file() else None, "\n".join(said)


def test_a_plan_is_taken_along_from_a_version_that_is_signed_by_the_same_key(
    network: Path, keys: tuple[Path, Path]
) -> None:
    assert carry(network, None) == ("as it was proven", "")
    (network / ".staging-9" / PLAN).unlink()
    signing.sign(network / "1", Signer(keys[0]))
    assert carry(network, Signer(keys[0])) == ("as it was proven", "")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("rm 1/model.sig", "is unsigned"),
        (f"echo planted > 1/{PLAN}", f"is not what was signed\nNote: changed: {PLAN}"),
        ("cp -r 1 7", "is not net version 7"),
    ],
)
def test_a_signer_takes_no_plan_along_that_does_not_verify(
    network: Path, keys: tuple[Path, Path], script: str, told: str
) -> None:
    signing.sign(network / "1", Signer(keys[0]))
    attackers.attack(network, script)
    plan, said = carry(network, Signer(keys[0]))
    assert plan is None and said.startswith(
        f"No plan is taken along from version {script[-1] if '7' in script else 1}: "
    )
    assert told in said and str(network) in said


def test_a_manifest_made_to_fit_a_planted_plan_makes_it_none(network: Path, keys: tuple[Path, Path]) -> None:
    signing.sign(network / "1", Signer(keys[0]))
    publish(network / "1", 1, plan="planted")  # as an attacker would, who can count digests, too
    plan, said = carry(network, Signer(keys[0]))
    assert plan is None and f"changed: manifest.json; changed: {PLAN}" in said


def test_a_choice_that_leads_out_of_the_version_is_none(network: Path) -> None:
    (network / "planted").write_text("planted")
    release = manifest.read(network / "1")
    choice = dataclasses.replace(release.choices[0], file="../planted")
    manifest.write(dataclasses.replace(release, choices=(choice,)), network / "1")
    (network / ".staging-9").mkdir()
    release = release_of(("net",), version=9)
    choices = carry_plans(
        release, network, network / ".staging-9", print, profile={}, server_tensorrt="10", signer=None
    )
    assert choices == release.choices


def test_another_signers_version_is_taken_along_if_the_environment_trusts_it(
    network: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, public = key_pair(tmp_path, "theirs", ec.generate_private_key(ec.SECP256R1()))
    signing.sign(network / "1", Signer(theirs))
    assert carry(network, Signer(keys[0]))[0] is None
    monkeypatch.setenv("VERIFY_KEY", str(public))
    assert carry(network, Signer(keys[0]))[0] == "as it was proven"


def signed_digests(signature: Path) -> dict[str, str]:
    envelope = json.loads(signature.read_text())["dsseEnvelope"]
    resources = json.loads(b64decode(envelope["payload"]))["predicate"]["resources"]
    return {resource["name"]: resource["digest"] for resource in resources}


def swap() -> None:
    """Put another folder into the place of the one that is being published, for a moment."""
    for name in [path.name for path in Path().glob("staged-*")]:
        mine = f"mine-{name}-{time.monotonic_ns()}"
        Path(mine).mkdir()
        Path(mine, "model.onnx").write_text("planted")
        Path(name).rename(f"away-{name}")
        Path(mine).rename(name)
        time.sleep(0.005)
        Path(name).rename(mine)
        Path(f"away-{name}").rename(name)
        time.sleep(0.005)


def test_what_is_signed_is_what_was_proven_while_somebody_swaps_the_folder(
    tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    """The folder is ours to write, and the one above it is everybody's: another one is put into its place."""
    root, proven = tmp_path / "net", hashlib.sha256(b"as it was proven").hexdigest()
    root.mkdir()
    with attackers.attacking(root, swap):
        for number in range(30):
            with suppress(ProjectError, OSError):
                written(root, {f"staged-{number}/model.onnx": "as it was proven"})
                seal(release_of((), version=1), root / f"staged-{number}", Signer(keys[0]))
    signatures = [*root.rglob("model.sig")]
    assert signatures, "the attacker left no chance to sign"
    assert {signed_digests(signature)["model.onnx"] for signature in signatures} == {proven}
