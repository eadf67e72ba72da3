"""Turn a checkpoint into a proven release in the model repository.

  python -m export FAMILY                                  the newest checkpoint
  python -m export FAMILY --checkpoint path/to/best.ckpt   a named one
  python -m export FAMILY --from models:/FAMILY@champion   the one behind a registered release; or --run-id
  python -m export FAMILY --search always                  compare every INT8 recipe
  python -m export FAMILY --target tensorrt                on a GPU machine: also builds plans
  python -m export --onnx FILE --spec FILE --inputs FILE   a graph that was trained elsewhere
  python -m export --torch package.module:make_model --weights FILE --inputs FILE    a module of plain PyTorch

  python -m export list                                    every published version
  python -m export show MODEL                              what one was proven to be
  python -m export verify                                  that nothing published was changed
  python -m export register MODEL                          into MLflow, where that failed before
  python -m export approve FAMILY --by NAME --reason TEXT  it is the champion; revoke takes that back
  python -m export history FAMILY                          who approved what, when and why
  python -m export adopt MODEL                             seal what serves and is not; with SIGNING_KEY all, signed
  python -m export prune --keep 3                          remove old versions
  python -m export new-steps MODEL                         pre- and post-processing of your own around a network

Every precision is compared with its reference on the whole held-out split and refused, with the numbers, if it is
over the limits in the spec. Every one that passes is compiled with TensorRT-RTX, which needs no GPU, as proof that
TensorRT takes it. The fastest of them is published as the next version, with a manifest.json that records all of
this and a report.html that shows it, once a Triton of its own has served it and answered its golden requests. What an
export made is kept in artifacts/export: the next one does only what has changed, and an interrupted one goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from cli import commands
from cli.commands import Command, day
from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError
from contracts.manifest import Compatibility
from contracts.spec import PRECISIONS
from export.registry.arguments import OF_REGISTRY

_NATIVE: Compatibility = "same_compute_capability"  # as files of plans are named


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, or run the command about published versions that `arguments` name; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in {command.name for command in COMMANDS}:
        return commands.run("python -m export", __doc__, COMMANDS, given)
    parser = command_line()
    options = parser.parse_args(given)
    _check(parser, options)

    from export.commands import export  # torch and onnx take seconds to import

    return export(options, given)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of an export's arguments."""
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
    source.add_argument("--torch", metavar="MODULE:CALLABLE", help="a callable that gives an nn.Module instead")
    source.add_argument(
        "--weights", type=Path, metavar="FILE", help="its state_dict or safetensors, if it has none yet"
    )
    source.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="of a checkpoint, or --weights, with both: the averaged weights (EMA, SWA), or those of the last step "
        "(default: its state_dict, as it stands)",
    )
    source.add_argument("--spec", type=Path, metavar="FILE", help="what it promises (TOML); --torch writes a first one")
    source.add_argument(
        "--inputs",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="representative inputs, perhaps labels and expected outputs (.npz, one for each length; or folders)",
    )

    steps = parser.add_argument_group("Python steps of your own around it", "docs/how-to/steps-of-your-own.md")
    steps.add_argument(
        "--preprocess", type=Path, metavar="FILE.py", help="defines preprocess(raw): bytes to the graph's inputs, a row"
    )
    steps.add_argument(
        "--postprocess", type=Path, metavar="FILE.py", help="defines OUTPUTS and postprocess(OUTPUT, …), for a row"
    )

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
    how.add_argument(
        "--hardware-compatible",
        nargs="?",
        const="ampere_plus",
        default=_NATIVE,
        choices=get_args(Compatibility),
        help="the GPUs that a plan runs on: those of the compute capability that built it (default); ampere_plus, or "
        "no word: Ampere and everything newer, which is slower; none: the very model that built it",
    )
    how.add_argument("--server-tensorrt", metavar="VERSION", help="of the Triton that will load the plans")
    how.add_argument("--force", action="store_true", help="do every step anew, whatever is cached")

    where = parser.add_argument_group("where to")
    where.add_argument("--repository", type=Path, default=layout.model_repository(), help="default: model_repository")
    _serve(where)
    where.add_argument("--no-register", dest="register", action="store_false", help="leave MLflow's registry alone")
    where.add_argument("--json", action="store_true", help="print the manifest on stdout, nothing else")
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if sum(map(bool, (options.family, options.onnx, options.torch))) != 1:
        parser.error("name a family, a graph with --onnx, or a module with --torch")
    if options.onnx and not (options.spec and options.inputs):
        parser.error("--onnx goes with --spec and --inputs")
    if options.torch and not options.inputs:
        parser.error("--torch goes with --inputs: samples to prove it on")
    if options.family and (options.spec or options.inputs):
        parser.error("--spec and --inputs are of a model brought with --onnx or --torch")
    if options.ema is not None and not (options.family or options.weights):
        parser.error("--ema and --no-ema choose weights of a checkpoint, or of --weights")
    if options.weights and not options.torch:
        parser.error("--weights are those of --torch")
    sources = [options.checkpoint, options.reference, options.run_id]
    if sum(source is not None for source in sources) > (1 if options.family else 0):
        parser.error("--checkpoint, --from and --run-id each name a checkpoint of a family: one at most")
    if options.family and (options.preprocess or options.postprocess):
        parser.error("--preprocess and --postprocess are for a graph that is brought: a family has its steps in git")
    if options.calibration_samples < 1:
        parser.error("--calibration-samples must be at least 1")
    if options.target != "tensorrt" and (options.hardware_compatible != _NATIVE or options.server_tensorrt):
        parser.error("--hardware-compatible and --server-tensorrt are about plans: add --target tensorrt")
    if options.search_budget < 0:
        parser.error("--search-budget cannot be negative")


def _list(command: argparse.ArgumentParser) -> None:
    _repository(command)
    command.add_argument("--json", action="store_true", help="JSON on stdout")


def _show(command: argparse.ArgumentParser) -> None:
    _list(command)
    _version(command)


def _verify(command: argparse.ArgumentParser) -> None:
    _list(command)
    command.add_argument("model", nargs="?", metavar="MODEL", help="its name in the repository (default: all)")
    command.add_argument("version", nargs="?", type=int, metavar="VERSION", help="default: all")
    command.add_argument("--verify-key", type=Path, metavar="FILE", help="signed with this key's private half")
    command.add_argument("--verify-chain", type=Path, nargs="+", metavar="FILE", help="or below this root")
    command.add_argument("--verify-identity", metavar="SAN", help="e-mail address, URI or host name of the certificate")
    command.add_argument(
        "--accept-expired-after", type=day, metavar="DATE", help="take what says it was made since, if it expired then"
    )


def _register(command: argparse.ArgumentParser) -> None:
    _repository(command)
    _version(command)


def _adopt(command: argparse.ArgumentParser) -> None:
    _repository(command)
    command.add_argument("model", nargs="?", metavar="MODEL", help="its name in the repository (default: all)")
    _serve(command)


def _prune(command: argparse.ArgumentParser) -> None:
    _list(command)
    command.add_argument("model", nargs="?", metavar="MODEL", help="its name in the repository (default: all)")
    command.add_argument("--keep", type=_count, required=True, metavar="N", help="of each network, its newest N")
    command.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")


def _new_steps(command: argparse.ArgumentParser) -> None:
    _repository(command)
    command.add_argument("model", metavar="MODEL", help="the network, by its name in the repository")
    command.add_argument(
        "--takes",
        choices=["bytes", "tensors"],
        default="bytes",
        help="what clients send: bytes to decode, or tensors such as the network takes (default: bytes)",
    )
    command.add_argument("--no-postprocess", action="store_true", help="clients get the network's outputs as they are")
    command.add_argument(
        "--configs",
        action="store_true",
        help="after a change of INPUTS or OUTPUTS: write the configurations of steps that are there anew, nothing else",
    )


def _repository(command: argparse.ArgumentParser) -> None:
    command.add_argument("--repository", type=Path, default=layout.model_repository(), help="default: model_repository")


def _serve(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--no-serve",
        dest="serve",
        action="store_false",
        help="publish it as not yet served: no Triton loads it and answers its golden requests before",
    )


def _version(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="its name in the repository")
    command.add_argument("version", nargs="?", type=int, metavar="VERSION", help="default: the newest")


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number of versions, 1 or more")
    return int(text)


OF_PUBLISHED = (
    Command("list", "every published version, and which one serves", "export.published.listing:list_versions", _list),
    Command("show", "what a version was proven to be", "export.published.proof:show", _show),
    Command(
        "verify",
        "that versions are what was published: every file's digest, and signatures",
        "export.published.proof:verify",
        _verify,
    ),
    Command("register", "a version in MLflow's model registry", "export.published.proof:register", _register),
    Command(
        "adopt",
        "seal what serves, where it was published before there were bundles: the next version of the same graph and "
        "plans, with the configurations and steps of today",
        "export.published.adopt:adopt",
        _adopt,
    ),
    Command(
        "prune",
        "remove old versions; never the one that serves, the way back from it, or what a running server has",
        "export.published.prune:prune",
        _prune,
    ),
    Command(
        "new-steps",
        "write Python steps around a network, MODEL_preprocess and MODEL_postprocess, and the ensemble MODEL_pipeline "
        "that clients call; nothing that is there is touched",
        "export.scaffold.commands:new_steps",
        _new_steps,
    ),
)
COMMANDS = (*OF_PUBLISHED, *OF_REGISTRY)

if __name__ == "__main__":
    run_command_line(main, ProjectError)
