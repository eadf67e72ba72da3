"""What stands in for `python -m training fit`: it learns nothing, tells its search the same, and takes as long as told.

  python -m tests.training.sweep.quick_fit --model.x=0.3 --model.y=2 --steps=9 --pause=0.01

Its quality is known: highest at x = 0.7, y = 3, and reached step by step. It is nan above x = 0.95, and below 0.02 the
fit fails.
"""

import math
import sys
import time

from training.sweep.fits import trial
from training.sweep.fits.trial import Result, Trial


def quality(x: float, y: float) -> float:
    return 1 - (x - 0.7) ** 2 - 0.02 * (y - 3) ** 2


def main() -> None:
    trial.end_with_the_search()
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    current = trial.current()
    assert current is not None
    note(current, "begun")
    x, y, steps = float(flags["model.x"]), float(flags.get("model.y", 3)), int(flags.get("steps", 9))
    if x < 0.02:
        print("RuntimeError: it is too small to be fitted")
        sys.exit(1)
    value = math.nan if x > 0.95 else quality(x, y)
    for step in range(1, steps + 1):
        time.sleep(float(flags.get("pause", 0)))
        current.report(step, steps, value * (1 - 0.5**step))
    (current.directory / "best.ckpt").write_text(f"{x} {y}")
    cost = 1 + y if current.wants_latency else None
    note(current, "ended")
    current.finish(Result(value, {"val_accuracy": value, "test_accuracy": value / 2}, flags.get("data", "d"), cost))


def note(current: Trial, what: str) -> None:
    """Leave a line in a file that no search removes."""
    with (current.directory / "notes").open("a") as file:
        file.write(what + "\n")


if __name__ == "__main__":
    main()
