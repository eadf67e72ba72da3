"""Build the client library as a package of its own: `pip install ./clients`.

In the repository it is `clients`, and imports a little of `contracts` and `cli`. None of these names may land in
somebody's site-packages: the build writes all of it into one package, gpu_inference_client, under its new names. It
works in a temporary folder, and leaves nothing in the repository.
"""

import re
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import find_packages, setup  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, COMMAND = "gpu_inference_client", "gpu-inference-client"
BORROWED = (
    "contracts/__init__.py",
    "contracts/entities/__init__.py",
    "contracts/entities/declaration.py",
    "contracts/entities/example.py",
    "contracts/entities/filling.py",
    "contracts/entities/given.py",
    "contracts/entities/records.py",
    "contracts/entities/releases.py",
    "contracts/entities/tables.py",
    "contracts/errors.py",
    "contracts/files/__init__.py",
    "contracts/files/decoded.py",
    "contracts/files/locks.py",
    "contracts/files/texts.py",
    "contracts/judging/__init__.py",
    "contracts/judging/card.py",
    "contracts/layout.py",
    "contracts/manifest.py",
    "contracts/names.py",
    "contracts/proven/__init__.py",
    "contracts/proven/figures.py",
    "contracts/proven/gates.py",
    "contracts/proven/variants.py",
    "contracts/repository.py",
    "contracts/running/__init__.py",
    "contracts/running/record.py",
    "contracts/samples.py",
    "contracts/spec.py",
    "contracts/trust/__init__.py",
    "contracts/trust/account.py",
    "cli/__init__.py",
    "cli/commands.py",
    "cli/home.py",
    "cli/progress.py",
    "cli/run.py",
    "cli/tables.py",
    "cli/terminal.py",
)
# What is ours is named where it is imported, where a command says what carries it out, and in hints.
NEW_NAMES = (
    (re.compile(r"^(\s*(?:from|import) )clients(?=[. ])", re.MULTILINE), rf"\g<1>{PACKAGE}"),
    (re.compile(r"^(\s*(?:from|import) )(contracts|cli)(?=[. ])", re.MULTILINE), rf"\g<1>{PACKAGE}.\g<2>"),
    (re.compile(r'"clients\.'), f'"{PACKAGE}.'),
    (re.compile(r"python -m clients"), COMMAND),
)


def write_project(folder: Path) -> None:
    """Write the package into a folder, under its new names, and what describes it beside it."""
    for source in sorted((ROOT / "clients").rglob("*.py")):
        if source != Path(__file__).resolve():
            _write(source, folder / PACKAGE / source.relative_to(ROOT / "clients"))
    for name in BORROWED:
        _write(ROOT / name, folder / PACKAGE / name)
    for file in (ROOT / "clients" / "py.typed", ROOT / "LICENSE"):
        shutil.copy(file, folder / PACKAGE)
    for file in (ROOT / "clients" / "pyproject.toml", ROOT / "clients" / "README.md"):
        shutil.copy(file, folder)


def _write(source: Path, target: Path) -> None:
    text = source.read_text(encoding="utf-8")
    for old, new in NEW_NAMES:
        text = old.sub(new, text)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def main() -> None:
    """Have setuptools do what it is asked for, in a folder that holds the package as a project of its own."""
    if not (ROOT / "contracts").is_dir():
        sys.exit("error: the client is built inside its repository\nHint: pip install git+URL#subdirectory=clients")
    if {"sdist", "develop", "editable_wheel"} & {*sys.argv}:
        sys.exit("error: the client is built as a wheel only\nHint: pip wheel ./clients")
    with TemporaryDirectory(prefix=f"{COMMAND}-") as scratch, chdir(scratch):
        write_project(Path(scratch))
        setup(packages=find_packages(), package_data={PACKAGE: ["py.typed", "LICENSE"]})


if __name__ == "__main__":  # as setuptools has it
    main()
