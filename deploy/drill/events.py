"""What happens in a drill, in its order: what a user types, what is put there by hand, and kills."""

from collections.abc import Callable, Collection

from deploy.drill import bad_models, kills, releases
from deploy.drill.server_copy import DrillCopy
from deploy.errors import DrillError

Action = Callable[[DrillCopy], str]  # does it and returns what to say of it; raises DrillError if it went wrong

# What is done, and within how many seconds every client has to be served again; None: not one request may fail.
EVENTS: tuple[tuple[str, Action, float | None], ...] = (
    ("new version", releases.publish_new_version, None),
    ("same-version overwrite", releases.overwrite_version, None),
    ("bad version", releases.publish_bad_version, None),
    ("roll back", releases.roll_back, None),
    ("changed release", releases.publish_changed_release, None),
    ("changes rolled back", releases.roll_back, None),
    ("changes promoted", releases.promote, None),
    ("stub killed", kills.kill_worker, 3.0),
    ("bad models, server killed", bad_models.that_do_not_load, 10.0),
    ("crashing model", bad_models.that_takes_the_server_down, 20.0),  # two restarts, which find out that it is to blame
    ("server killed", kills.kill_server, 10.0),
    ("crash loop", kills.crash_loop, 40.0),  # as many kills as make a loop, 10 s each
)


def chosen(names: Collection[str]) -> tuple[tuple[str, Action, float | None], ...]:
    """Return the events of these names, in the order of the drill; without names, all.

    Raises:
        DrillError: a drill has no such event.
    """
    known = [name for name, *_ in EVENTS]
    if strange := [name for name in names if name not in known]:
        raise DrillError(f"a drill has no event {strange[0]!r}", note=f"it has: {'; '.join(known)}")
    return tuple(event for event in EVENTS if not names or event[0] in names)
