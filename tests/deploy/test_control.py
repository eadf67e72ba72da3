"""A connection to a running server's admin side, by itself."""

import subprocess
import sys

from contracts import layout

# Ctrl-C just when a thread has begun: it runs, and whoever started it does not know.
PROGRAM = """
import threading
from deploy.triton.control import Control
from deploy.triton.state import Process, Running

start = threading.Thread.start

def interrupted(thread):
    start(thread)
    raise KeyboardInterrupt

up = Running(Process(1, 0.0), Process(1, 0.0), "ready", "127.0.0.1", 1, 2, 3, "models", "served", None, "", 1)
threading.Thread.start = interrupted
kept = []  # as a traceback keeps what it was about
try:
    Control(up)
except KeyboardInterrupt as error:
    kept.append(error)
print("ended")
"""


def test_ctrl_c_while_a_connection_is_made_leaves_no_thread_that_the_end_waits_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=layout.ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout == "ended\n", done.stderr
