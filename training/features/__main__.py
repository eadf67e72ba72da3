"""The same commands in the environment `data`: `python -m training features` starts this there."""

import warnings

from cli.run import run_command_line
from contracts.errors import ProjectError
from training.features.command_line import run_here

if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of one of its libraries, by another
    run_command_line(run_here, ProjectError)
