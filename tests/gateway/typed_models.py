"""Small models for the typed door: of files, of texts, of many datatypes, of records, and ferries."""

from dataclasses import replace
from pathlib import Path

from contracts import manifest
from tests import ferries

_HEAD = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def given(self, request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()
"""
# The label is the file's first word, the score its share of all; one that begins with `!` is refused.
_LABELS = """
    def answer(self, request):
        rows = [bytes(each) for each in self.given(request, "image").reshape(-1)]
        if any(row.startswith(b"!") for row in rows):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("no image", pb_utils.TritonError.INVALID_ARG))
        top = np.array([[row[:8], b"other", b"\\xff\\xfe"] for row in rows], np.object_)
        scores = np.array([[0.75, 0.25, 0.0]] * len(rows), np.float32)
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("label", top[:, :1]), pb_utils.Tensor("score", scores[:, :1]),
            pb_utils.Tensor("top_labels", top), pb_utils.Tensor("top_scores", scores),
        ])
"""
_VECTORS = """
    def answer(self, request):
        rows = [bytes(each) for each in self.given(request, "text").reshape(-1)]
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("embedding", np.array([[len(r), r.count(b"a"), 0.5, np.nan] for r in rows], np.float32))
        ])
"""
# Every output is the input of its name.
_TABLE = """
    def answer(self, request):
        names = ("flag", "tiny", "large", "half", "double", "word", "grid")
        found = {name: self.given(request, name) for name in names}
        made = [pb_utils.Tensor(f"{name}_out", value) for name, value in found.items() if value is not None]
        if found["grid"] is None:
            made.append(pb_utils.Tensor("grid_out", np.full((len(found["flag"]), 2, 3), -1, np.float32)))
        return pb_utils.InferenceResponse(made)
"""
_FERRIES = """
    def answer(self, request):
        tide, tonnes = self.given(request, "tide"), self.given(request, "tonnes")
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("minutes", (tide + self.given(request, "passengers")).astype(np.float32)),
            pb_utils.Tensor("tonnes_out", tonnes.astype(np.float32)),
        ])
"""
# Answers by which way it was asked, and what it was told of each row: a JSON object.
_EITHER = """
    def answer(self, request):
        texts, names = self.given(request, "records"), ("word", "count", "sure", "value")
        if texts is not None and b"before" in texts[0, 0]:  # as Triton says it of a release that has no records
            said = "expected 4 inputs but got 1 inputs. Got input(s) ['records'], but missing required input(s) [...]"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(said, pb_utils.TritonError.INVALID_ARG))
        columns = [self.given(request, name) for name in names]
        if texts is not None and any(column is not None for column in columns):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("both", pb_utils.TritonError.INVALID_ARG))
        way, rows = "records", texts
        if texts is None:
            way, rows = "columns", np.array([[repr(row)] for row in zip(*(c[:, 0] for c in columns))], np.object_)
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("way", np.array([[way]] * len(rows), np.object_)), pb_utils.Tensor("told", rows),
        ])
"""
_COLUMNS = {
    "flag": ("BOOL", "1"),
    "tiny": ("INT8", "1"),
    "large": ("UINT64", "1"),
    "half": ("FP16", "1"),
    "double": ("FP64", "1"),
    "word": ("STRING", "1"),
    "grid": ("FP32", "2, 3"),
}
_OF_EITHER = {
    "records": ("STRING", "1"),
    "word": ("STRING", "1"),
    "count": ("INT32", "1"),
    "sure": ("BOOL", "1"),
    "value": ("FP32", "1"),
}
_OF_FERRIES = {
    "line": ("STRING", "1"),
    "pier": ("STRING", "1"),
    "departure": ("STRING", "1"),
    "passengers": ("INT32", "1"),
    "built": ("INT32", "1"),
    "tonnes": ("FP64", "1"),
    "tide": ("FP32", "1"),
}


def repository(folder: Path) -> Path:
    """A model repository with the five, and the release that declares the entities of ferries."""
    _write(folder, "labels", _LABELS, {"image": ("STRING", "1")}, {
        "label": ("STRING", "1"), "score": ("FP32", "1"), "top_labels": ("STRING", "3"), "top_scores": ("FP32", "3"),
    })  # fmt: skip
    _write(folder, "vectors", _VECTORS, {"text": ("STRING", "1")}, {"embedding": ("FP32", "4")})
    outputs = {f"{name}_out": kind for name, kind in _COLUMNS.items()}
    _write(folder, "table", _TABLE, _COLUMNS, outputs, optional={"grid"})
    told = {"way": ("STRING", "1"), "told": ("STRING", "1")}
    _write(folder, "either", _EITHER, _OF_EITHER, told, optional={*_OF_EITHER})
    _write(folder, "ferries", _FERRIES, _OF_FERRIES, {"minutes": ("FP32", "1"), "tonnes_out": ("FP32", "1")}, version=2)
    return folder


def releases(folder: Path) -> Path:
    """What the gateway is told of them: the release of ferries, number 2."""
    directory = ferries.released(folder, 2)
    manifest.write(replace(manifest.read(directory), models=("net", "ferries")), directory)
    return folder


def _write(
    folder: Path,
    name: str,
    code: str,
    inputs: dict[str, tuple[str, str]],
    outputs: dict[str, tuple[str, str]],
    *,
    optional: frozenset[str] | set[str] = frozenset(),
    version: int = 1,
) -> None:
    (folder / name / str(version)).mkdir(parents=True)
    (folder / name / str(version) / "model.py").write_text(_HEAD + code)
    lines = [f'name: "{name}" backend: "python" max_batch_size: 8']
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor, (datatype, dims) in tensors.items():
            more = " optional: true" if tensor in optional else ""
            lines.append(f'{kind} {{ name: "{tensor}" data_type: TYPE_{datatype} dims: [ {dims} ]{more} }}')
    (folder / name / "config.pbtxt").write_text("\n".join(lines))
