"""`python -m clients`: see `command_line/main.py`."""

from clients.command_line.main import console

if __name__ == "__main__":
    console()
