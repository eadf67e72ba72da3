"""The profiler's report, of `--trainer.profiler simple|advanced|pytorch`, as files of the run's folder."""

from pathlib import Path

from pytorch_lightning.profilers import PassThroughProfiler, Profiler

_FOLDER = "profile"


def write_into(profiler: Profiler, folder: Path) -> None:
    """Have `profiler` write into the run's folder, unless it has a place of its own."""
    if isinstance(profiler, PassThroughProfiler) or profiler.dirpath or profiler.filename:
        return
    profiler.dirpath, profiler.filename = folder / _FOLDER, "profile"


def reports(folder: Path) -> list[Path]:
    """Return what a profiler wrote there."""
    return sorted(path for path in (folder / _FOLDER).glob("*") if path.is_file())
