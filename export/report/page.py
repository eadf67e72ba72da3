"""The report's pages: what their templates, the files that end with .j2 here, are filled with."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cli.terminal import plain
from contracts.manifest import Difference, Gate, Manifest, Variant, find_gate
from contracts.spec import ModelSpec
from export.report import card, plots, tabular
from export.report.evidence import Evidence, flips, recalls

_MARKDOWN = re.compile(r"[\n<`|\[]")  # what begins a tag, code, a cell or a link
_CPU_FILE = "model.onnx"
_PAGES = ("report.html", "report.md", "MODEL_CARD.md")
_LAYERS = 30  # the most sensitive ones
_CLASSES, _CLASSES_OF_MANY = 40, 20  # up to 40 classes all are shown, of more the 20 most changed
_FLIPS = 24  # samples a variant


def render(release: Manifest, spec: ModelSpec, evidence: Evidence) -> dict[str, str]:
    """Render the pages: {file name: text}."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = _content(release, spec, evidence)
    return {name: templates.get_template(f"{name}.j2").render(content) for name in _PAGES}


@jinja2.pass_eval_context
def _text(context: jinja2.nodes.EvalContext, value: Any) -> Any:
    """Return what a page shows of a value: a name is text, and neither steers a reader's terminal nor is markup."""
    if isinstance(value, Markup):
        return value
    shown = plain(str(value))
    return shown if context.autoescape else _MARKDOWN.sub(_escaped, shown)


def _escaped(found: "re.Match[str]") -> str:
    return {"\n": " ", "<": "&lt;", "`": "'"}.get(found[0], f"\\{found[0]}")


def _content(release: Manifest, spec: ModelSpec, evidence: Evidence) -> dict[str, Any]:
    files = sorted({file for v in release.variants for file in v.timings})
    batch = _batch(release, spec)
    int8 = next((v.recipe for v in release.variants if v.precision == "int8" and v.passed), None)  # chosen, so judged
    left_out = int8.left_out if int8 else ()
    classes = recalls(evidence, spec.labels)
    shown = classes if len(classes) <= _CLASSES else classes[:_CLASSES_OF_MANY]
    layers = release.sensitivity[:_LAYERS]
    return {
        "release": release,
        "metric": release.metric,
        "compared_with": release.source.compared_with,
        "colours": plots.COLOURS,
        "files": files,
        "batch": batch,
        "served": {
            v.precision: [c.file for c in release.choices if c.precision == v.precision] for v in release.variants
        },
        "failures": {v.precision: _failures(v) for v in release.variants},
        "scored": any(v.score is not None for v in release.variants),
        "agreed": any(find_gate(v.gates, "agreement") for v in release.variants),
        "agreement": {v.precision: find_gate(v.gates, "agreement") for v in release.variants},
        "differences": _differences(release),
        "gate_groups": _gate_groups(release),
        "pareto": _pareto(release, files, batch),
        "answer_output": spec.answer_output,
        "on_gpu": any(file != _CPU_FILE for file in files),
        "disturbed": _disturbed(release),
        "recipe": int8,
        "trial_gates": {gate.id: gate.name for trial in release.trials for gate in trial.gates},
        "search": _search(release, spec.answer_output),
        "importance": _importance(evidence),
        "layers": layers,
        "left_out": left_out,
        "sensitivity": plots.sensitivity(layers, left_out, spec.answer_output) if layers else None,
        "classes": classes,
        "shown_classes": shown,
        "per_class": plots.per_class(shown) if shown and shown[0].variants else None,
        **card.content(release),
        "flips": {precision: flips(evidence, precision, spec.labels, _FLIPS) for precision in evidence.answers},
    }


def _importance(evidence: Evidence) -> dict[str, Any] | None:
    """Draw what the columns of a table do to the answers; None where there are none."""
    found = evidence.importance
    if found is None:
        return None
    pictures = {"overall": tabular.overall(found), "predictions": tabular.predictions(found)}
    return {**pictures, "explained": len(found.moved), "columns": found.overall}


def _failures(variant: Variant) -> list[Gate]:
    """List the gates that keep a variant, or its engine, from being served."""
    proofs = (*variant.gates, *(variant.engine.gates if variant.engine else ()))
    return [gate for gate in proofs if not gate.passed]


def _gate_groups(release: Manifest) -> dict[str, Sequence[Gate]]:
    groups: dict[str, Sequence[Gate]] = {"the release": release.gates}
    for variant in release.variants:
        groups[f"{variant.precision}, graph"] = variant.gates
        groups[f"{variant.precision}, engine"] = variant.engine.gates if variant.engine else ()
        worth_it = {file: timing.worth_it for file, timing in variant.timings.items()}
        groups |= {f"{variant.precision}, worth it in {file}": (gate,) for file, gate in worth_it.items() if gate}
    return {name: gates for name, gates in groups.items() if gates}


def _differences(release: Manifest) -> dict[str, dict[str, Difference]]:
    """Return {output: {precision: how far it moved}}."""
    outputs = dict.fromkeys(output for variant in release.variants for output in variant.differences)
    return {
        output: {v.precision: v.differences[output] for v in release.variants if output in v.differences}
        for output in outputs
    }


def _batch(release: Manifest, spec: ModelSpec) -> str:
    """Return the batch size whose latency stands for a variant: the one it is tuned for, or the nearest measured."""
    measured = {int(size) for v in release.variants for timing in v.timings.values() for size in timing.median_ms}
    return str(min(measured, key=lambda size: abs(size - spec.usual_batch), default=spec.usual_batch))


def _pareto(release: Manifest, files: Sequence[str], batch: str) -> str | None:
    """Draw the metric against latency; None where nothing was timed, or there is no figure to draw."""
    labelled = _judged_by_share(release)
    panels = {file: [p for v in release.variants if (p := _point(release, v, file, batch))] for file in files}
    panels = {file: points for file, points in panels.items() if points}
    if not panels:
        return None
    name = release.metric.name if labelled and release.metric else "agreement with the reference"
    return plots.pareto(panels, name, batch, release.reference_score if labelled else None)


def _judged_by_share(release: Manifest) -> bool:
    """Tell whether the metric is a share of which more is better: what the picture's axis is made for."""
    metric = release.metric
    return release.reference_score is not None and metric is not None and metric.share and metric.better == "higher"


def _point(release: Manifest, variant: Variant, file: str, batch: str) -> plots.Point | None:
    timing, agreement = variant.timings.get(file), find_gate(variant.gates, "agreement")
    share = variant.score if _judged_by_share(release) else None
    if share is None and agreement:
        share = agreement.figure
    if share is None or timing is None or batch not in timing.median_ms:
        return None
    low, drop = share, find_gate(variant.gates, "metric_drop")
    if release.reference_score is not None and drop and _judged_by_share(release):
        low = min(share, release.reference_score - drop.figure / 100)
    served = any(c.file == file and c.precision == variant.precision for c in release.choices)
    median = timing.median_ms[batch]
    first, last = timing.interval_ms.get(batch, (median, median))
    grey = file == _CPU_FILE and variant.precision != "fp32"
    return plots.Point(variant.precision, median, share, low, served, (min(first, median), max(last, median)), grey)


def _disturbed(release: Manifest) -> list[str]:
    """Say of which latencies the 99th percentile is not the variant's own."""
    return [
        f"{v.precision}, {file}, {timing.disturbed}"
        for v in release.variants
        for file, timing in v.timings.items()
        if timing.disturbed
    ]


def _search(release: Manifest, answer: str) -> str | None:
    """Draw the search for the INT8 recipe; None where there is nothing to compare."""
    if len(release.trials) < 2:
        return None
    chosen = {variant.recipe for variant in release.variants if variant.passed}  # its engine was judged as well
    attempts = []
    for number, trial in enumerate(release.trials, start=1):
        recipe, gate = trial.recipe, find_gate(trial.gates, "metric_drop") or find_gate(trial.gates, "agreement")
        left_out = f", {len(recipe.left_out)} in FP32" if recipe.left_out else ""
        name = f"{number}  {recipe.quantizer} {recipe.method}, {recipe.samples}{left_out}"
        attempts.append(plots.Attempt(name, trial.error, gate, trial.passed, recipe in chosen))
    return plots.search(attempts, answer)
