"""One look for all figures: colours, type sizes, and how a figure becomes a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from segloop.files import atomic_file

# Okabe and Ito, "Color Universal Design", 2008: told apart by people with any common colour vision. No figure leans on
# colour alone: markers, line styles or hatches repeat what it says, so that a greyscale print can be read.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
INK, GREY, PALE, PAPER = "#1F2933", "#66727F", "#E4E8EC", "#FFFFFF"

# Any: matplotlib types every single key; unknown keys are an error when the style is applied.
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    # Names may hold dollar signs.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 7.0,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    # Names inside an SVG are random unless salted; outlines instead of text look the same on every machine.
    "svg.hashsalt": "segloop",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the project's look while a figure is made and saved; the caller's settings come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a person's own matplotlibrc must not change the figures
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, on the Agg canvas (no display is ever needed)."""
    margins = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(width, height), layout=margins)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, *paths: Path, dpi: int = 144) -> None:
    """Write a figure to each path, whole or not at all; the same figure gives the same bytes.

    Parameters
    ----------
    paths
        Destinations; the suffix (.svg or .png) chooses the format.
    dpi
        Pixels an inch of a PNG.
    """
    for path in paths:
        kind = path.suffix.removeprefix(".")
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)


def say_missing(axes: Axes, message: str) -> None:
    """Write on otherwise empty axes what is missing and why, instead of drawing nothing."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", color=GREY, wrap=True, transform=axes.transAxes)
