"""Turn a checkpoint into a proven release in the model repository.

  python -m export fashion                                   the newest checkpoint
  python -m export fashion --checkpoint path/to/best.ckpt    a named one
  python -m export fashion --from models:/fashion@champion   the one behind a registered release; or --run-id
  python -m export fashion --search always                   compare every INT8 recipe
  python -m export fashion --target tensorrt                 on a GPU machine: also builds plans
  python -m export --onnx FILE --spec FILE --inputs FILE     a graph that was trained elsewhere

  python -m export list                                      every published version
  python -m export show fashion_classifier                   what one was proven to be
  python -m export verify                                    that nothing published was changed
  python -m export register fashion_classifier               into MLflow, where that failed before

Every precision is compared with its reference on the whole held-out split and refused, with the numbers, if it is
over the limits in the spec. Every one that passes is compiled with TensorRT-RTX, which needs no GPU, as proof that
TensorRT takes it. The fastest of them is published as the next version, with a manifest.json that records all of
this and a report.html that shows it. What an export made is kept in artifacts/export: the next one does only what
has changed, and an interrupted one goes on.
"""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.run import run_command_line
from contracts import layout, signing
from contracts.errors import ProjectError, SpecError
from contracts.manifest import Manifest
from contracts.spec import PRECISIONS, ModelSpec, Precision

if TYPE_CHECKING:
    from cli.progress import Progress
    from export.source.base import ExportSource

_OF_PUBLISHED = ("list", "show", "verify", "register")  # about what is published already: export/release/published.py


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in _OF_PUBLISHED:
        from export.release import published

        return published.main(given)
    parser = _parser()
    options = parser.parse_args(given)
    _check(parser, options)

    from cli.progress import Progress
    from export import pipeline  # torch and onnx take seconds to import
    from export.cache import Cache
    from export.context import ExportRequest
    from export.proof.engine import SERVER_TENSORRT, Options
    from export.tools import code, gpu, versions

    progress = Progress()
    work = layout.artifacts() / "export"
    source = _export_source(options, progress, work)
    request = ExportRequest(
        command=shlex.join(["python", "-m", "export", *given]),
        precisions=_precisions(options.precision, source.spec),
        server_tensorrt=options.server_tensorrt or SERVER_TENSORRT,
        search=options.search,
        search_budget_s=options.search_budget,
        signer=signing.signer_from_environment(),
    )
    if options.target == "tensorrt":
        engines = Options("tensorrt", options.hardware_compatible, work / "timing")
        request = replace(request, engines=engines)
    with _configured(options, source.spec, progress) as model_directory:
        release = pipeline.run(
            source,
            request,
            model_directory=model_directory,
            cache=Cache(work / source.spec.family, versions() | gpu() | {"code": code()}, force=options.force),
            progress=progress,
        )
    directory = options.repository / release.model / str(release.version)
    if options.json:
        print(json.dumps(asdict(release), indent=2))
    else:
        _tell(release, directory)
    if options.register:
        _register(release, directory, progress)
    progress.say("Next: python -m deploy up")
    return 0


def _parser() -> argparse.ArgumentParser:
    # The families' names only: importing one of them imports torch, which is not for --help.
    from training.families import FAMILIES

    parser = argparse.ArgumentParser(
        prog="python -m export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_argument_group("what to export")
    source.add_argument("family", nargs="?", choices=list(FAMILIES), help="the model family of the checkpoint")
    source.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")
    source.add_argument("--from", dest="reference", metavar="MODEL", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    source.add_argument("--run-id", help="the MLflow run that logged the checkpoint")
    source.add_argument("--onnx", type=Path, metavar="FILE", help="an ONNX graph instead of a checkpoint")
    source.add_argument("--spec", type=Path, metavar="FILE", help="what it promises (TOML)")
    source.add_argument("--inputs", type=Path, metavar="FILE", help="representative inputs, perhaps labels (.npz)")

    how = parser.add_argument_group("how")
    how.add_argument("--precision", nargs="+", choices=PRECISIONS, help="default: all that the spec has limits for")
    how.add_argument("--calibration-samples", type=int, default=1024, metavar="N", help="for INT8 (default: 1024)")
    how.add_argument(
        "--search",
        choices=["auto", "always", "never"],
        default="auto",
        help="INT8 recipes: look for another if the first is over the limits, compare all, or take the first "
        "as it is (default: auto)",
    )
    how.add_argument("--search-budget", type=float, default=300, metavar="SECONDS", help="default: 300")
    how.add_argument(
        "--target",
        choices=["cpu", "tensorrt"],
        default="cpu",
        help="tensorrt: also build, prove and publish plans; needs an NVIDIA GPU (default: cpu)",
    )
    how.add_argument("--hardware-compatible", action="store_true", help="plans for Ampere and everything newer")
    how.add_argument("--server-tensorrt", metavar="VERSION", help="of the Triton that will load the plans")
    how.add_argument("--force", action="store_true", help="do every step anew, whatever is cached")

    where = parser.add_argument_group("where to")
    where.add_argument("--repository", type=Path, default=layout.model_repository(), help="default: model_repository")
    where.add_argument("--no-register", dest="register", action="store_false", help="leave MLflow's registry alone")
    where.add_argument("--json", action="store_true", help="print the manifest on stdout, nothing else")
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    foreign = [options.onnx, options.spec, options.inputs]
    if any(foreign) and not all(foreign):
        parser.error("--onnx, --spec and --inputs go together")
    if bool(options.family) == bool(options.onnx):
        parser.error("name a family, or a graph with --onnx, --spec and --inputs")
    sources = [options.checkpoint, options.reference, options.run_id]
    if sum(source is not None for source in sources) > (0 if options.onnx else 1):
        parser.error("--checkpoint, --from and --run-id each name a checkpoint of a family: one at most")
    if options.calibration_samples < 1:
        parser.error("--calibration-samples must be at least 1")
    if options.target != "tensorrt" and (options.hardware_compatible or options.server_tensorrt):
        parser.error("--hardware-compatible and --server-tensorrt are about plans: add --target tensorrt")
    if options.search_budget < 0:
        parser.error("--search-budget cannot be negative")


def _export_source(options: argparse.Namespace, progress: "Progress", work: Path) -> "ExportSource":
    from contracts import spec
    from export.errors import ExportError
    from export.release import registry
    from export.source.checkpoint import from_checkpoint
    from training import checkpoints, families

    if options.onnx:
        facts = spec.from_toml(options.spec)
        progress.say(f"Exporting {layout.shown(options.onnx)}")
        from export.source.graph_file import from_graph

        return from_graph(options.onnx, facts, options.inputs, options.calibration_samples)
    family = families.load(options.family)
    if not (options.repository / family.spec.model / "config.pbtxt").is_file():
        raise ExportError(
            f"{options.repository} has no {family.spec.model}/config.pbtxt",
            hint="--repository names a Triton model repository",
        )
    reference = options.reference or options.run_id
    if reference:
        path = registry.checkpoint_of(reference, work / family.name / "downloaded")
    else:
        path = options.checkpoint or checkpoints.newest(family.name)
    checkpoint = checkpoints.read(path, family)
    progress.say(f"Exporting {layout.shown(checkpoint.path)}")
    return from_checkpoint(family, checkpoint, options.calibration_samples)


@contextmanager
def _configured(options: argparse.Namespace, spec: ModelSpec, progress: "Progress") -> Iterator[Path]:
    """The model's folder; a brought graph's configurations are written, and removed again if it is not published.

    A configuration without a version would keep every server from starting.
    """
    from export.release import configs

    directory = options.repository / spec.model
    made = configs.write_configs(directory, spec) if options.onnx else []
    try:
        yield directory
    except BaseException:
        for path in made:
            path.unlink()
        for folder in (directory / "configs", directory):
            if made and not any(path for path in folder.iterdir() if path.name != ".publish.lock"):
                shutil.rmtree(folder)
        raise
    for path in made:
        progress.say(f"Wrote {layout.shown(path)}, yours to change")


def _precisions(asked: list[Precision] | None, spec: ModelSpec) -> list[Precision]:
    if missing := [precision for precision in asked or () if precision not in spec.limits]:
        raise SpecError(f"the spec of {spec.model} has no limits for {', '.join(missing)}")
    return [precision for precision in PRECISIONS if precision in (asked or spec.limits)]


def _tell(release: Manifest, directory: Path) -> None:
    from cli.tables import console
    from export.release.tables import variants_table

    out = console()
    out.print(variants_table(release))
    for choice in release.choices:
        out.print(f"{choice.file} is {choice.reason}", soft_wrap=True, markup=False)
    out.print(
        f"\nPublished {release.model} version {release.version}: {layout.shown(directory)}",
        soft_wrap=True,
        markup=False,
    )
    out.print(f"Report: {layout.shown(directory / 'report.html')}", soft_wrap=True, markup=False)


def _register(release: Manifest, directory: Path, progress: "Progress") -> None:
    from export.errors import RegistryError
    from export.release import registry

    try:
        name = registry.register(release, directory)
    except RegistryError as error:
        raise RegistryError(
            f"{release.model} version {release.version} is published, but not registered: {error}",
            hint=f"when MLflow answers again: python -m export register {release.model} {release.version}",
        ) from error
    progress.say(f"Registered as {name}, alias {registry.ALIAS}")


if __name__ == "__main__":
    run_command_line(main, ProjectError)
