"""Errors of the benchmarks.

BenchmarkError
├── ToolError          perf_analyzer could not be had
└── MeasurementError   nothing to send, nobody to send it to, or the tool failed
"""

from contracts.errors import ProjectError


class BenchmarkError(ProjectError):
    """A benchmark cannot go on."""


class ToolError(BenchmarkError):
    """perf_analyzer could not be found or installed."""


class MeasurementError(BenchmarkError):
    """There is nothing to send, nobody to send it to, or the tool failed."""
