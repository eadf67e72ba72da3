"""`python -m training` with quick fits, to be killed: `python -m tests.training.sweep.quick_search sweep …`."""

from collections.abc import Mapping
from typing import Any

from cli.run import run_command_line
from contracts.errors import ProjectError
from training.__main__ import main
from training.sweep import carrying_out
from training.sweep.space import flags
from training.sweep.study import Search


def quick(search: Search, parameters: Mapping[str, Any]) -> list[str]:
    return ["-m", "tests.training.sweep.quick_fit", *search.flags, *flags(parameters)]


if __name__ == "__main__":
    carrying_out.command = quick
    run_command_line(main, ProjectError)
