"""What a search has found: the trials that no other beats, as a table, as a picture, and as the next command."""

import json
import shlex
from collections.abc import Mapping
from csv import DictWriter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cli import plots, tables
from contracts import layout
from training import families
from training.errors import SweepError
from training.sweep import carrying_out, claims
from training.sweep.fits.trial import LATENCY, Trial
from training.sweep.study import Study, quality

_COLUMNS = 4  # parameters that a table shows; all are in trials.csv
_UNIT = f"{LATENCY}_ms"


@dataclass(frozen=True)
class Findings:
    """What a search has found."""

    study: Study
    figure: str  # what quality is called: val_auc
    trials: list[FrozenTrial]  # those that count, in their order
    front: list[FrozenTrial]  # those that no other beats in all objectives, the best in quality first

    @property
    def best(self) -> FrozenTrial:
        """The one of the best quality."""
        return self.front[0]

    @property
    def best_figures(self) -> Mapping[str, float]:
        """What MLflow keeps of it."""
        names = (self.figure, _UNIT)
        return dict(zip(names, self.best.values, strict=False))

    @property
    def picture(self) -> Path:
        """Where it is drawn."""
        return self.study.folder / "front.png"

    @property
    def table(self) -> Path:
        """Where all trials are listed."""
        return self.study.folder / "trials.csv"

    def checkpoint(self, trial: FrozenTrial) -> Path:
        """Return what a trial learned."""
        return self.study.trial_folder(trial.number) / "best.ckpt"

    def export(self, trial: FrozenTrial) -> str:
        """Return the command that makes a release of a trial."""
        checkpoint = layout.shown(self.checkpoint(trial))
        return shlex.join(["python", "-m", "export", self.study.search.family, "--checkpoint", checkpoint])

    def reproduce(self, trial: FrozenTrial) -> str:
        """Return the command that trains it once more, alone."""
        there = Trial.at(self.study.trial_folder(trial.number))  # not on the machine of another worker
        variables = [f"{name}={value}" for name, value in (there.given["environment"] if there else {}).items()]
        return shlex.join([*variables, "python", *carrying_out.command(self.study.search, trial.params)])


def of(study: Study, opened: optuna.Study) -> Findings:
    """Gather what a search has found.

    Raises:
        SweepError: no trial has ended well.
    """
    trials = claims.started(opened.get_trials(deepcopy=False))
    front = [t for t in opened.best_trials if claims.SAME_AS not in t.user_attrs]
    if not front:
        errors = [t.user_attrs[claims.ERROR] for t in trials if claims.ERROR in t.user_attrs]
        raise SweepError(
            f"of {len(trials)} trials none ended well", note=errors[-1] if errors else None,
            hint=f"what they printed: {layout.shown(study.folder)}/trials/*/log.txt",
        )  # fmt: skip
    sign = -1 if opened.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    front.sort(key=lambda trial: (sign * trial.values[0], *trial.values[1:], trial.number))
    # Workers that drew the same at the same moment have both tried it.
    front = [t for at, t in enumerate(front) if t.params not in [other.params for other in front[:at]]]
    return Findings(study, quality(families.spec(study.search.family))[0], trials, front)


def write(found: Findings) -> None:
    """Write the picture, and the table of all trials."""
    names = list(found.study.search.space.search)
    half = found.table.with_name(".trials.csv.half")
    with half.open("w", newline="", encoding="utf-8") as file:
        rows = DictWriter(file, ["trial", "state", found.figure, _UNIT, *names, "seconds", "same_as", "error"])
        rows.writeheader()
        for trial in found.trials:
            rows.writerow(_row(found, trial))
    half.replace(found.table)
    draw(found, found.picture)


def draw(found: Findings, path: Path) -> None:
    """Draw quality over latency, with the front; of one objective, quality over trials."""
    done = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    several = len(found.best.values) > 1
    with plots.figure(7, 4.2) as figure:
        axes = figure.subplots()
        x = [trial.values[1] if several else trial.number for trial in done]
        axes.scatter(x, [trial.values[0] for trial in done], s=16, color=plots.GREY, label="trials")
        front = sorted(found.front, key=lambda trial: trial.values[1]) if several else [found.best]
        at = [trial.values[1] if several else trial.number for trial in front]
        style: dict[str, Any] = {"marker": "o", "markersize": 5, "color": plots.BLUE, "drawstyle": "steps-post"}
        axes.plot(at, [t.values[0] for t in front], label="Pareto front" if several else "best", **style)
        for trial, place in zip(front, at, strict=True):
            axes.annotate(str(trial.number), (place, trial.values[0]), xytext=(4, 5), textcoords="offset points")
        axes.set_xlabel("milliseconds of one thread for one sample" if several else "trial")
        axes.set_ylabel(f"{found.figure}, validation split")
        axes.set_title(f"{found.study.name}: {len(done)} trials that ran to their end")
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
        half = path.with_name(f".{path.stem}.half.png")
        figure.savefig(half)
    half.replace(path)


def tell(found: Findings, asked: int, took_s: float, *, as_json: bool) -> None:
    """Say what was found, and what comes next."""
    if as_json:
        print(json.dumps(_described(found), indent=2))
        return
    shown = list(found.study.search.space.search)[:_COLUMNS]
    units = [found.figure, "ms"][: len(found.best.values)]
    tests = sorted({name for trial in found.front for name in _figures(trial) if name.startswith("test_")})[:1]
    table = tables.table(
        "trial", *units, *tests, *shown, title="The Pareto front: no other trial is better in all of these"
    )
    for trial in found.front:
        figures = [f"{value:.4g}" for value in trial.values]
        others = [f"{_figures(trial).get(name, float('nan')):.4f}" for name in tests]
        table.add_row(str(trial.number), *figures, *others, *(_short(trial.params[name]) for name in shown))
    tables.console(110).print(table)
    counts = {state: sum(t.state == state for t in found.trials) for state in TrialState}
    minutes, seconds = divmod(round(took_s), 60)
    asked = max(asked, len(found.trials))  # where it was asked for more before
    print(
        f"{found.study.name}: {counts[TrialState.COMPLETE]} of {asked} trials ran to their end, "
        f"{counts[TrialState.PRUNED]} were stopped early, {counts[TrialState.FAIL]} failed; "
        f"{minutes} min {seconds:02d} s"
    )
    print(f"Drawn in {layout.shown(found.picture)}; all trials: {layout.shown(found.table)}")
    print(f"The best again: {found.reproduce(found.best)}")
    print(f"Next: {found.export(found.best)}")


def _described(found: Findings) -> dict[str, Any]:
    return {
        "study": found.study.name,
        "trials": [_row(found, trial) for trial in found.trials],
        "front": [
            {
                **_row(found, trial),
                "parameters": trial.params,
                "figures": _figures(trial),
                "checkpoint": str(found.checkpoint(trial)),
                "reproduce": found.reproduce(trial),
                "export": found.export(trial),
            }
            for trial in found.front
        ],
        "picture": str(found.picture),
    }


def _row(found: Findings, trial: FrozenTrial) -> dict[str, Any]:
    values = dict(zip((found.figure, _UNIT), (trial.values or [])[: len(found.best.values)], strict=False))
    if trial.state != TrialState.COMPLETE:
        values = {}  # of one that was stopped Optuna keeps the last it reported
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        **values,
        **trial.params,
        "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
        "same_as": trial.user_attrs.get(claims.SAME_AS),
        "error": trial.user_attrs.get(claims.ERROR),
    }


def _figures(trial: FrozenTrial) -> dict[str, float]:
    return dict(trial.user_attrs.get("figures", {}))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
