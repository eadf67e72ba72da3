"""The style of every picture. Okabe and Ito's palette, which colour-blind people can tell apart."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

BLUE, AMBER, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
INK, GREY, PALE, GRID = "#24292f", "#8c959f", "#f6f8fa", "#e6e8eb"

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name may be "$"
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def figure(
    width_in: float, height_in: float, dpi: int = 110, style: Mapping[Any, Any] | None = None
) -> "Iterator[Figure]":
    """Make a figure in the project's style, to be drawn and saved in the block. Without pyplot's global state.

    Args:
        style: matplotlib's rc parameters, over the project's.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, **(style or {})}):
        made = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
        FigureCanvasAgg(made)
        yield made
