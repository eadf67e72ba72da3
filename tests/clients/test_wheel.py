"""The client as a package of its own: built, put into an environment with what it declares and nothing else, and used.

What it declares is taken from this environment, so that no index is asked: what it imports and does not declare is not
there. (`test_pip_finds_all_it_needs` asks one.)
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from contracts import layout
from tests.conftest import FAMILY, RunningServer
from tests.ferries import released

pytestmark = pytest.mark.heavy  # it builds the wheel, and asks a server with it
PACKAGE, COMMAND = "gpu_inference_client", "gpu-inference-client"
OURS = {"cli", "clients", "contracts", "deploy", "export", "training", "tests"}
HEAVY = ("torch", "tensorrt", "cuda", "onnx", "mlflow", "rich")
PROGRAM = """
import asyncio, sys
from pathlib import Path
from gpu_inference_client import AsyncClient, Client, Entities, InvalidInputError, Prediction
from gpu_inference_client.shared_memory import SharedMemory

image = Path(sys.argv[1]).read_bytes()

async def ask(url):
    async with AsyncClient(url) as client:
        outputs = await client.infer("NAME", {"image": [[image]]})
        return (await client.classify(image)).label, outputs["label"][0, 0].decode()

labels = set()
for url in sys.argv[2:]:
    with Client(url) as client:
        labels.add(client.classify(image).label)
        labels.add(client.infer("NAME", {"image": [[image]]})["label"][0, 0].decode())
        assert len([one for one in client.classify_many([image] * 9, batch_size=2) if isinstance(one, Prediction)]) == 9
        try:
            client.classify(b"no image")
        except InvalidInputError as error:
            assert "not a readable PNG" in str(error)
    labels.update(asyncio.run(ask(url)))
assert len(labels) == 1, labels
assert Entities.of_release(Path(sys.argv[0]).with_name("net") / "1").known[0].name == "line"
print(*labels)
""".replace("NAME", FAMILY)
# What a caller writes, and what only types can refuse.
CALLER = """
from gpu_inference_client import AsyncClient, Client, ClientError, Prediction, Retry, TransportOptions

def label(client: Client, image: bytes) -> str:
    found: Prediction = client.classify(image, timeout_s=2)
    client.infer("m", {"a": [1]}, request_id="1", priority=1)["b"].astype("float32")
    return found.label

async def labels(client: AsyncClient, images: list[bytes]) -> list[str]:
    return [one.label async for one in client.classify_many(images) if not isinstance(one, ClientError)]

client = Client("grpc://127.0.0.1:1", retry=Retry(budget=0), transport=TransportOptions(compression="gzip"))
client.infer("m", {}, timeout="soon")  # refused: arg-type
client.metadata(7)  # refused: arg-type
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip wheel` does, with the setuptools that is here; and nothing is left behind."""
    before = _status()
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
    ]
    _must(*command, "--no-build-isolation", "--wheel-dir", folder, layout.ROOT / "clients")
    assert _status() == before
    [found] = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it declares: its bin/."""
    root = tmp_path_factory.mktemp("service")
    venv.create(root, symlinks=True)
    python = root / "bin" / "python"
    packages = Path(_must(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    _must(*pip, "--no-deps", "--no-index", wheel)
    [installed] = packages.glob("*.dist-info")
    for name in {name for found in declared(PathDistribution(installed)) for name in top_levels(found)}:
        source = Path(str(distribution("pip").locate_file(name)))
        if not (packages / name).exists():
            (packages / name).symlink_to(source)
    return python.parent


def declared(
    of: Distribution, extras: frozenset[str] = frozenset(), seen: set[str] | None = None
) -> list[Distribution]:
    """The distributions that one needs, and those that these need."""
    seen = set() if seen is None else seen
    found = []
    for requirement in map(Requirement, of.requires or []):
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
        )
        key = f"{requirement.name.lower()}{sorted(requirement.extras)}"
        if wanted and key not in seen:
            seen.add(key)
            needed = distribution(requirement.name)
            assert needed.version in requirement.specifier
            found += [needed, *declared(needed, frozenset(requirement.extras), seen)]
    return found


def top_levels(of: Distribution) -> set[str]:
    """What it has in site-packages."""
    return {path.parts[0] for path in of.files or [] if path.parts[0] not in ("..", "__pycache__")}


def test_the_wheel_has_one_name_and_that_is_ours(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.partition("/")[0] for name in names} == {PACKAGE, "gpu_inference_client-0.1.0.dist-info"}
        assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/LICENSE"} <= {*names}
        sources = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    library = {path.relative_to(layout.ROOT / "clients") for path in (layout.ROOT / "clients").rglob("*.py")}
    assert {f"{PACKAGE}/{path}" for path in library if path.name != "setup.py"} <= {*sources}
    for name, source in sources.items():
        assert not imported(source) & OURS, name
        assert "python -m clients" not in source, name


def imported(source: str) -> set[str]:
    """Top-level packages, also those that are imported by a name in a string."""
    found = set(re.findall(r'"(\w+)\.[\w.]+(?:"|:)', source))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_a_service_that_only_calls_needs_nothing_else(
    environment: Path, server: RunningServer, examples: Path, tmp_path: Path
) -> None:
    image, urls = examples / "00000.png", [f"grpc://{server.grpc}", f"http://{server.http}"]
    (tmp_path / "service.py").write_text(PROGRAM)
    released(tmp_path)
    label = _must(environment / "python", tmp_path / "service.py", image, *urls).strip()
    assert label
    for heavy in HEAVY:
        assert (
            _must(environment / "python", "-c", f"from importlib.util import find_spec; print(find_spec('{heavy}'))")
            == "None\n"
        )
    for command in ([environment / COMMAND], [environment / "python", "-m", PACKAGE]):
        answer = json.loads(_must(*command, "classify", "--json", "--server", urls[1], image))
        assert answer["label"] == label
    refused = subprocess.run(
        [environment / COMMAND, "infer", "nope", "--server", urls[0]], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert f"Hint: see what it serves: {COMMAND} models" in refused.stderr


def test_its_types_are_a_callers(environment: Path, tmp_path: Path) -> None:
    """Under mypy --strict."""
    (tmp_path / "caller.py").write_text(CALLER)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--python-executable", environment / "python"),
            *("--cache-dir", layout.ROOT / ".mypy_cache" / "client", "caller.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    refused = [number for number, line in enumerate(CALLER.splitlines(), start=1) if "# refused" in line]
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line]
    assert found == refused, done.stdout


@pytest.mark.slow
def test_pip_finds_all_it_needs(tmp_path: Path) -> None:
    """In a clean environment, from a git URL, as a service would install it; with what pip chooses."""
    venv.create(tmp_path / "clean", symlinks=True, with_pip=True)
    python, git = tmp_path / "clean" / "bin" / "python", f"git+file://{_committed(tmp_path / 'repository')}"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    _must(*pip, "install", "--quiet", f"{git}#subdirectory=clients")
    _must(*pip, "check")
    installed = {one["name"].lower() for one in json.loads(_must(*pip, "list", "--format", "json"))}
    assert COMMAND in installed
    assert not {name for name in installed if name.startswith((*HEAVY, "nvidia"))}
    _must(python, "-c", f"from {PACKAGE} import AsyncClient, Client; Client().close()")
    refused = subprocess.run([python.with_name(COMMAND), "health"], capture_output=True, text=True, check=False)
    assert "does not respond" in refused.stdout


def _committed(folder: Path) -> Path:
    """A repository with the files of this one that git sees, as they are now."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "clients", "contracts", "cli", "LICENSE"]
    names = subprocess.run(listed, cwd=layout.ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if (layout.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(layout.ROOT / name, folder / name)
    git = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t"]
    _must(*git, "init", "--quiet")
    _must(*git, "add", "--all")
    _must(*git, "commit", "--quiet", "--message", "all")
    return folder


def _must(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], cwd="/", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _status() -> str:
    """What git sees, ignored files included."""
    command = ["git", "status", "--short", "--ignored", "clients", "cli", "contracts"]
    return subprocess.run(command, cwd=layout.ROOT, check=True, capture_output=True, text=True).stdout
