"""Hard links within a private copy of ours: a file of it stands in a second place, and no byte is written twice."""

from collections.abc import Collection
from pathlib import Path

from contracts import copying


def link(source: Path, target: Path, without: Collection[str] = ()) -> None:
    """Put hard links to the files below `source`, a copy that nobody else writes, into `target`.

    Args:
        target: May be there already; a file of the same name is replaced.
        without: Names in `source` itself that are left out.
    """
    copying.make_folder(target)
    for path in sorted(source.iterdir()):
        if path.name in without:
            continue
        if path.is_dir():
            link(path, target / path.name)
        else:
            (target / path.name).unlink(missing_ok=True)
            (target / path.name).hardlink_to(path)
