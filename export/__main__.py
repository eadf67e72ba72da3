"""Turn a checkpoint into a proven release in the model repository.

  python -m export fashion                                   the newest checkpoint
  python -m export fashion --checkpoint path/to/best.ckpt    a named one
  python -m export fashion --precision fp32 fp16             only these variants
  python -m export fashion --target tensorrt                 on a GPU machine: also builds model.plan

Every precision is compared with the checkpoint on the whole test split and refused, with the numbers, if it
is over the limits in training/families/FAMILY/spec.py. Every one that passes is compiled with TensorRT-RTX,
which needs no GPU, as proof that TensorRT takes it. The fastest of them is published as the next version,
with a manifest.json that records all of this. Refused variants stay in artifacts/export/FAMILY/.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from contracts import layout
from contracts.errors import run_command_line
from contracts.manifest import Manifest
from contracts.spec import PRECISIONS


def main() -> int:
    # The families' names only: importing one of them imports torch, which is not for --help.
    from training.families import FAMILIES

    parser = argparse.ArgumentParser(
        prog="python -m export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=list(FAMILIES), help="the model family")
    parser.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: all of them")
    parser.add_argument(
        "--target",
        choices=["cpu", "tensorrt"],
        default="cpu",
        help="tensorrt: also build, prove and publish model.plan; needs an NVIDIA GPU (default: cpu)",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=1024,
        metavar="N",
        help="training images for INT8 (default: 1024)",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=layout.MODEL_REPOSITORY,
        help="the Triton model repository to publish into (default: model_repository)",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest on stdout, nothing else")
    options = parser.parse_args()
    if options.calibration_images < 1:
        parser.error("--calibration-images must be at least 1")

    from export import pipeline  # torch and onnx take seconds to import
    from export.errors import ExportError
    from export.progress import Progress
    from training import checkpoints, families

    family = families.load(options.family)
    model_directory = options.repository / family.spec.model
    if not (model_directory / "config.pbtxt").is_file():
        raise ExportError(
            f"{options.repository} has no {family.spec.model}/config.pbtxt",
            hint="--repository names a Triton model repository",
        )
    checkpoint = checkpoints.read(options.checkpoint or checkpoints.newest(family.name), family)
    progress = Progress()
    progress.say(f"Exporting {layout.shown(checkpoint.path)}")
    release = pipeline.run(
        family,
        checkpoint,
        precisions=sorted(set(options.precision), key=PRECISIONS.index),
        target=options.target,
        calibration_images=options.calibration_images,
        model_directory=model_directory,
        work=layout.ARTIFACTS / "export" / family.name,
        progress=progress,
    )
    if options.json:
        print(json.dumps(asdict(release), indent=2))
    else:
        _report(release, options.repository)
    return 0


def _report(release: Manifest, repository: Path) -> None:
    from rich.console import Console

    from export.report import variants_table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    console.print(variants_table(release))
    for choice in release.choices:
        console.print(f"{choice.file} is {choice.reason}", soft_wrap=True)
    place = layout.shown(repository / release.model / str(release.version))
    console.print(f"\nPublished {release.model} version {release.version}: {place}", soft_wrap=True)
    console.print("Next: python -m deploy up")


if __name__ == "__main__":
    run_command_line(main)
