"""Where signatures are asked for, nothing is served that they do not cover, whatever somebody writes beside it.

The attacker is a process of another user, who may write everywhere in the model repository and nowhere else.
"""

import dataclasses
import shutil
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from contracts import bundle, manifest, signing
from contracts.errors import ProjectError
from contracts.signing import Signer, Trust
from deploy.served import content, unsealed
from tests import attackers
from tests.attackers import replacing
from tests.contracts.signers import key_pair
from tests.small_releases import NETWORK, PYTHON, ensemble, files, release_of, written

pytestmark = pytest.mark.usefixtures("signing_here")

PLANTED = "planted"
PARAMETER = 'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{}" }} }}'


def seal(root: Path, network: str, version: int, signer: Path, *, bundled: bool = True) -> Path:
    """Publish and sign a version of a network, with an ensemble above it and a step of Python."""
    directory = written(root / network / str(version), {"model.onnx": f"{network} {version}"})
    models = bundle.write(root, network, directory) if bundled else ()
    release = release_of(models, model=network, version=version, files=manifest.files_of(directory))
    manifest.write(release, directory)
    signing.sign(directory, Signer(signer))
    return directory


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"), "ours", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def root(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """Releases 1 and 2 of `net`, sealed and signed, and one of `other`."""
    root = written(
        tmp_path / "repository",
        {
            "net/config.pbtxt": NETWORK,
            "way/config.pbtxt": ensemble("before", "net"),
            "way/1/README": "",
            "before/config.pbtxt": PYTHON,
            "before/1/model.py": "as signed",
            "other/config.pbtxt": NETWORK.replace("net", "other"),
        },
    )
    for network, version in (("net", 1), ("net", 2), ("other", 1)):
        seal(root, network, version, keys[0])
    return root


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server would be given."""

    files: dict[str, str]
    failed: dict[str, ProjectError]
    said: list[str]


def serve(root: Path, folder: Path, public: Path | None) -> Served:
    into, said = folder / "repository", list[str]()
    into.mkdir(parents=True)
    try:
        failed = content.put(content.choose(root), into, None, Trust(public) if public else None, said.append)
        return Served(files(into), failed, said)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("attack", "left_out", "told"),
    [
        ("mv net/2 net/7", "net", "is not net version 7\nNote: it was published as net version 2"),
        ("cp -r net/1 net/3; rm -r net/2", "net", "is not net version 3"),
        ("rm -r net/2; cp -r other/1 net/2", "net", "its network is other"),
        ("cp -r net/2 other/2", "other", "its network is net"),
        ("echo planted > net/2/release/before/libplanted.so", "net", "not signed: release/before/libplanted.so"),
        ("echo planted > net/2/model.py", "net", "not signed: model.py"),
        ("echo planted > net/2/release/before/1/model.py", "net", "changed: release/before/1/model.py"),
        ("truncate -s 1 net/2/model.onnx", "net", "changed: model.onnx"),
        ("echo planted > net/x; ln -sf ../x net/2/model.onnx", "net", "model.onnx is a link to"),
        ("rm net/2/model.sig", "net", "is unsigned"),
        ("rm net/2/model.sig net/2/manifest.json; echo planted > net/config.pbtxt", "net", "is unsigned"),
        (
            "mkdir -p new/1; echo planted > new/1/model.py; echo 'backend: \"python\"' > new/config.pbtxt",
            "new",
            "unsealed",
        ),
        ("mkdir -p other/2; echo planted > other/2/model.py; cp before/config.pbtxt other/", "other", "unsealed"),
    ],
)
def test_what_no_signature_covers_is_left_out(
    root: Path, keys: tuple[Path, Path], tmp_path: Path, attack: str, left_out: str, told: str
) -> None:
    attackers.attack(root, attack)
    served = serve(root, tmp_path / "served", keys[1])
    assert told in str(served.failed[left_out])
    assert PLANTED not in "".join([*served.files, *served.files.values()])
    there = {"net": "net/2/model.onnx", "other": "other/1/model.onnx"}
    assert served.files.keys() & {*there.values()} == {name for network, name in there.items() if network != left_out}


@pytest.mark.parametrize(
    "attack",
    [
        "echo planted > before/config.pbtxt; echo planted > before/libplanted.so; echo planted > before/1/model.py",
        "for f in net/2 net/2/release/before/1; do mkdir $f/__pycache__; echo planted > $f/__pycache__/model.pyc; done",
        "for f in net/2 net/2/release/before/1; do echo planted > $f/helper.pyc; echo planted > $f/.hidden; done",
        "mkdir common; echo planted > common/helper.py",
        "echo planted > net/config.pbtxt; mkdir net/configs; echo planted > net/configs/cpu.pbtxt",
    ],
)
def test_what_lies_beside_a_release_changes_nothing(
    root: Path, keys: tuple[Path, Path], tmp_path: Path, attack: str
) -> None:
    before = serve(root, tmp_path / "served", keys[1])
    assert not before.failed and before.files["before/2/model.py"] == "as signed"
    attackers.attack(root, attack)
    after = serve(root, tmp_path / "served", keys[1])
    assert not after.failed and after.files == before.files


@pytest.mark.parametrize("planted", ["__pycache__/model.cpython-311.pyc", "helper.pyc", "sub/__pycache__/x.pyc"])
def test_compiled_code_is_never_copied_also_of_a_model_that_nobody_sealed(
    root: Path, tmp_path: Path, planted: str
) -> None:
    written(root / "new", {"config.pbtxt": PYTHON, "1/model.py": "code", "1/sub/x.py": "code", f"1/{planted}": PLANTED})
    served = serve(root, tmp_path / "served", None)
    assert not served.failed and served.files["new/1/model.py"] == "code"
    assert PLANTED not in served.files.values()


OUTSIDE = {
    "environment": 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/tmp/env.tar.gz" } }',
    "environment above": PARAMETER.format("$$TRITON_MODEL_DIRECTORY/../env.tar.gz"),
    "environment beside": PARAMETER.format("$$TRITON_MODEL_DIRECTORYx/env.tar.gz"),
    "environment of nowhere": PARAMETER.format("env.tar.gz"),
    "environment in a cloud": PARAMETER.format("s3://bucket/env.tar.gz"),
    "library": 'runtime: "../../../../tmp/libevil.so"',
    "backend": 'backend: "../../../tmp/evil"',
    "graph": 'default_model_filename: "../../evil/model.onnx"',
    "graph, absolute": 'default_model_filename: "/tmp/model.onnx"',
    "plan": 'cc_model_filenames { key: "9.0" value: "../../evil/model.plan" }',
    "operators": 'model_operations { op_library_filename: "/tmp/libops.so" }',
    "labels": 'output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] label_filename: "../../../../etc/passwd" }',
    "warm-up": 'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1 ] '
    'input_data_file: "../../../etc/passwd" } } }',
    "state": 'sequence_batching { state { input_name: "i" output_name: "o" initial_state { data_type: TYPE_FP32 '
    'dims: [ 1 ] name: "s" data_file: "a/../../../x" } } }',
    "agent": 'model_repository_agents { agents { name: "../../tmp/evil" } }',
    "engine cache": 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" parameters { '
    'key: "trt_engine_cache_path" value: "/tmp/engines" } } } }',
    "parameter": 'parameters { key: "session.custom_ops" value { string_value: "/tmp/libops.so" } }',
}


@pytest.mark.parametrize("more", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("name", ["config.pbtxt", "configs/cpu.pbtxt"])
def test_a_signed_release_that_has_the_server_open_what_lies_elsewhere_is_refused(
    root: Path, keys: tuple[Path, Path], tmp_path: Path, more: str, name: str
) -> None:
    """Who may write there later has signed nothing."""
    usual = 'name: "net"' if "backend:" in more else NETWORK
    written(root, {f"net/{name}": f"{usual} {more}"})
    seal(root, "net", 3, keys[0])
    served = serve(root, tmp_path / "served", keys[1])
    assert f"net/3/release/net/{name} has the server open " in str(served.failed["net"])
    assert "net/3/model.onnx" not in served.files and "other/1/model.onnx" in served.files


@pytest.mark.parametrize(
    "line",
    [
        *(
            "--find-links /tmp/wheels",
            "--find-links=../../wheels",
            "-f file:///tmp/wheels",
            "-f/tmp/wheels",
            "--find-links ~/wheels",
        ),
        *("--find-links ${HOME}/wheels", "own @ file:///tmp/own.whl", "/tmp/own.whl", "-e ../own"),
    ],
)
@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_a_signed_release_that_has_pip_look_elsewhere_is_refused(
    root: Path, keys: tuple[Path, Path], tmp_path: Path, line: str, name: str
) -> None:
    written(root, {f"before/{name}": f"# made by hand\nsoundfile==0.13.1\n{line}\n"})
    seal(root, "net", 3, keys[0])
    served = serve(root, tmp_path / "served", keys[1])
    assert f"net/3/release/before/{name} has the server open " in str(served.failed["net"])


def test_wheels_that_a_signed_release_brings_have_hashes(root: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The layer that its lock names may have been made of others, when nobody asked for signatures."""
    written(root, {"before/requirements.lock": "--find-links wheels\nown==1.0\n", "before/wheels/own-1.0.whl": "wheel"})
    seal(root, "net", 3, keys[0])
    served = serve(root, tmp_path / "served", keys[1])
    assert "requirements.lock has the server install own==1.0, which no signature" in str(served.failed["net"])


def test_a_signed_release_may_bring_its_wheels(root: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    lines = (
        "--find-links wheels",
        "--index-url https://example.org/simple",
        "own==1.0 --hash=sha256:00",
    )
    written(root, {"before/requirements.lock": "\n".join(lines), "before/wheels/own-1.0.whl": "wheel"})
    seal(root, "net", 3, keys[0])
    served = serve(root, tmp_path / "served", keys[1])
    assert not served.failed and served.files["before/wheels/own-1.0.whl"] == "wheel"


def test_what_a_signed_release_has_the_server_open_may_lie_in_it(
    root: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    inside = (
        'default_model_filename: "model.onnx" output { name: "/head/y" data_type: TYPE_FP32 dims: [ 1 ] '
        'label_filename: "labels.txt" } parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
    )
    own = 'parameters { key: "url" value { string_value: "https://example.org/a/../b" } }'
    environment = PARAMETER.format("$$TRITON_MODEL_DIRECTORY/env/env.tar.gz")
    written(root, {"net/config.pbtxt": f"{NETWORK} {inside}", "before/config.pbtxt": f"{PYTHON} {own} {environment}"})
    seal(root, "net", 3, keys[0])
    served = serve(root, tmp_path / "served", keys[1])
    assert not served.failed and "net/3/model.onnx" in served.files


def test_a_release_from_before_bundles_takes_its_steps_from_the_repository_and_is_refused(
    root: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    seal(root, "net", 3, keys[0], bundled=False)
    told = str(serve(root, tmp_path / "served", keys[1]).failed["net"])
    assert f"{root}/net/3 is unsealed: no signature covers the configurations, ensembles and steps" in told
    assert "Hint: seal and sign it: SIGNING_KEY=FILE python -m export adopt" in told
    assert not serve(root, tmp_path / "served", None).failed


def test_a_file_that_is_swapped_all_the_time_is_served_as_signed_or_not_at_all(
    root: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """Between what is looked at and what is copied, a release is made to look as if it were not sealed."""
    signed = (root / "net/2/manifest.json").read_bytes()
    (root / "before/1/model.py").write_text(PLANTED)
    loose = signed.replace(b'"models": [\n    "net",\n    "way",\n    "before"\n  ]', b'"models": []')
    assert loose != signed
    rounds, seen, until = 0, set[bool](), time.monotonic() + 30
    with attackers.attacking(root, *(replacing("net/2/manifest.json", text) for text in (loose, signed))):
        while time.monotonic() < until and (rounds < 40 or len(seen) < 2):
            served = serve(root, tmp_path / "served", keys[1])
            assert PLANTED not in served.files.values()
            seen.add("net" in served.failed)
            rounds += 1
    assert seen == {True, False}, "the attacker was too slow, or too quick"


def test_what_is_served_and_was_not_sealed_is_known_by_name(
    root: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    written(root / "new", {"config.pbtxt": PYTHON, "1/model.py": "code"})
    seal(root, "other", 2, keys[0], bundled=False)
    into = tmp_path / "served" / "repository"
    into.mkdir(parents=True)
    assert not content.put(content.choose(root), into, None, None, print)
    assert unsealed.names(into) == ["new", "other"]
