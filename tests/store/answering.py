"""A process that answers: it leaves a record of each request, and answers then.

python -m tests.store.answering SPOOL ANSWERS NAME PAUSE [COUNT]      # COUNT requests, without end by default
"""

import os
import sys
import time
from itertools import count
from pathlib import Path

from store.spool import Spool
from tests.store.given import prediction

if __name__ == "__main__":
    folder, answers, name, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    numbers = range(int(sys.argv[5])) if sys.argv[5:] else count()
    spool = Spool(folder, segment_bytes=200_000)  # so that there are many
    descriptor = os.open(answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in numbers:
        spool.put(prediction(f"{name}-{number}"))
        if spool.lost:
            sys.exit(spool.last_error)
        os.write(descriptor, f"r{name}-{number}\n".encode())
        time.sleep(pause_s)
