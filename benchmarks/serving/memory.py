"""Memory of the processes of a server: samples over time, and whether it grows.

Growth is the slope of a robust line (Theil–Sen) through a process's memory, without the start of its life: arenas and
pools fill then. The samples of a stretch of time become one, their median: neighbours say nearly the same, and an
interval that took them for independent would be far too narrow.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.stats import theilslopes

from cli import plots
from cli.plots import BLUE, GREY, VERMILION
from deploy.running import workers
from deploy.triton import state
from deploy.triton.state import Running

# Of the whole time. Where each sample resembles those of the minute before (an AR(1) series), the line through all of
# 300 grows "for sure" in 73 % of flat series, that through 24 medians in 27 %, that through 12 in 15 %.
_STRETCHES = 12
_FEWEST = 6  # through which a line is drawn


@dataclass(frozen=True)
class Sample:
    """A process at one time."""

    at_s: float
    name: str  # "tritonserver", "supervisor", "shared memory", "MODEL_0_0, version 1"
    pid: int  # 0: the shared memory
    uss_bytes: int  # its own: what would be free if it ended
    pss_bytes: int  # and its part of the pages that it shares
    rss_bytes: int  # and all of those
    files: int  # open ones; regions of the shared memory
    threads: int


@dataclass(frozen=True)
class Life:
    """One process, once it is warm: the middle of its stretches."""

    from_s: float
    to_s: float
    at_s: float
    mb: float


@dataclass(frozen=True)
class Growth:
    """How the own memory of whatever process has a name changes: a reload replaces a model's workers."""

    name: str
    pids: int  # processes that had it
    mb: tuple[float, float]  # at first and at last, like the two below
    files: tuple[int, int]
    threads: tuple[int, int]
    lives: tuple[Life, ...] = ()  # of those that lived long enough
    mb_per_h: float | None = None  # None: there is too little to tell
    low: float | None = None  # its 95 % interval
    high: float | None = None

    def over(self, limit_mb_per_h: float) -> bool:
        """Tell whether it grows for sure, and faster than that."""
        return self.mb_per_h is not None and self.mb_per_h > limit_mb_per_h and (self.low or 0) > 0


def sample(server: Running, at_s: float) -> list[Sample]:
    """Look at every process of the server, and at its shared memory."""
    processes = {"tritonserver": state.process(server.triton), "supervisor": state.process(server.supervisor)}
    for process in workers.find(server.shared_memory):
        if (worker := workers.identify(process)) is not None:
            processes[f"{worker.instance}, version {worker.version}"] = process
    found = [_of_process(at_s, name, process) for name, process in processes.items() if process is not None]
    return [*filter(None, found), _shared_memory(at_s, server.shared_memory)]


def growth(samples: Sequence[Sample], warm_up_s: float) -> list[Growth]:
    """Fit the growth of every name among the samples, without the first seconds of each process."""
    if not samples:
        return []
    stretch_s = (max(s.at_s for s in samples) - min(s.at_s for s in samples)) / _STRETCHES
    names = dict.fromkeys(sample.name for sample in samples)
    return [_growth([s for s in samples if s.name == name], warm_up_s, stretch_s) for name in names]


def plot(samples: Sequence[Sample], grown: Sequence[Growth], reloads_s: Sequence[float], path: Path) -> None:
    """Draw a panel a name: every sample, and the line through each life."""
    rows = -(-len(grown) // 2)
    with plots.figure(11, 2.6 * rows, dpi=120) as figure:
        for number, growth in enumerate(grown, start=1):
            axes = figure.add_subplot(rows, 2, number)
            own = [sample for sample in samples if sample.name == growth.name]
            axes.plot([s.at_s / 60 for s in own], [s.uss_bytes / 1e6 for s in own], ".", markersize=2, color=GREY)
            title = growth.name
            if growth.mb_per_h is not None:
                title += f": {growth.mb_per_h:+.1f} MB/h ({growth.low:+.1f} … {growth.high:+.1f})"
                for life in growth.lives:
                    times = np.array([life.from_s, life.to_s])
                    line = life.mb + growth.mb_per_h * (times - life.at_s) / 3600
                    axes.plot(times / 60, line, color=VERMILION, linewidth=2)
            for at_s in reloads_s:
                axes.axvline(at_s / 60, color=BLUE, linewidth=0.5, linestyle=":")
            axes.set_title(title, fontsize=9)
            axes.margins(y=0.5)
            axes.set_ylabel("own memory, MB", fontsize=8)
            axes.set_xlabel("minutes (dotted: a model is reloaded)", fontsize=8)
        figure.savefig(path)


def _growth(samples: Sequence[Sample], warm_up_s: float, stretch_s: float) -> Growth:
    lives, centred = [], []
    for _, life in groupby(sorted(samples, key=lambda s: (s.pid, s.at_s)), key=lambda s: s.pid):
        points = _points(list(life), warm_up_s, stretch_s)
        if len(points) > 1:
            middle = np.median(points, axis=0)
            lives.append(Life(points[0, 0], points[-1, 0], *middle))
            centred.append(points - middle)  # each life has a level of its own; the slope they have in common
    first, last = samples[0], samples[-1]
    known = Growth(
        first.name,
        len({sample.pid for sample in samples}),
        (first.uss_bytes / 1e6, last.uss_bytes / 1e6),
        (first.files, last.files),
        (first.threads, last.threads),
        tuple(lives),
    )
    if sum(map(len, centred)) < _FEWEST:
        return known
    seconds, mb = np.concatenate(centred).T
    with np.errstate(invalid="ignore"):  # of a process that never changes it cannot tell an interval
        slope, _, *interval = (float(figure) * 3600 for figure in theilslopes(mb, seconds))
    low, high = (slope if math.isnan(end) else end for end in interval)
    return replace(known, mb_per_h=slope, low=low, high=high)


def _points(life: Sequence[Sample], warm_up_s: float, stretch_s: float) -> NDArray[np.float64]:
    """Take the medians of time in s and memory in MB of each stretch of a process's life, [n, 2]."""
    warm = [sample for sample in life if sample.at_s >= life[0].at_s + warm_up_s]
    stretches = groupby(warm, key=lambda sample: sample.at_s // stretch_s)
    return np.array([np.median([(s.at_s, s.uss_bytes / 1e6) for s in own], axis=0) for _, own in stretches])


def _of_process(at_s: float, name: str, process: psutil.Process) -> Sample | None:
    try:
        with process.oneshot():
            memory = process.memory_full_info()
            if not memory.rss:  # read last: it has just ended
                return None
            return Sample(
                at_s, name, process.pid, memory.uss, memory.pss, memory.rss, process.num_fds(), process.num_threads()
            )
    except psutil.NoSuchProcess:  # it has just been replaced
        return None


def _shared_memory(at_s: float, prefix: str) -> Sample:
    sizes = []
    for region in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108  # Triton's own place for it
        with suppress(FileNotFoundError):
            sizes.append(region.stat().st_blocks * 512)
    return Sample(at_s, "shared memory", 0, sum(sizes), sum(sizes), sum(sizes), len(sizes), 0)
