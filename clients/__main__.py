"""`python -m clients`: see `command_line/main.py`."""

from clients.command_line.main import console
from clients.command_line.main import main as main  # as every program here has it

if __name__ == "__main__":
    console()
