"""A drawing board for diagrams: cards, arrows, pictures and text, in hundredths of an inch from the top left corner."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from PIL import Image

from segloop.reporting.drawing import Pixels
from segloop.reporting.style import GREY, INK, PAPER, save

Side = Literal["left", "center", "right"]
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""left, top, width, height."""

UNITS_PER_INCH = 100
LINE_HEIGHT = 1.5
"""Distance of two baselines in sizes of the type."""


class Canvas:
    """One diagram. Later things lie above earlier ones.

    Parameters
    ----------
    width, height
        In hundredths of an inch.
    """

    def __init__(self, width: float, height: float):
        self._figure = Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH))
        FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self._depth = 1.0

    def save(self, *paths: Path, dpi: int = 144) -> None:
        """Write the diagram; the suffix of a path chooses SVG or PNG."""
        save(self._figure, *paths, dpi=dpi)

    def _next(self) -> float:
        self._depth += 1
        return self._depth

    def text(
        self, at: Point, words: str, *, size: float = 10, align: Side = "left", middle: bool = False, **look: Any
    ) -> None:
        """Write words.

        Parameters
        ----------
        at
            The left, centre or right of the text (`align`), and the top of its capitals, or with `middle` their middle.
            Baselines are set by the size of the type alone, so that words with and without long letters line up.
        """
        point = UNITS_PER_INCH / 72
        x, y = at[0], at[1] + 0.73 * size * point * (0.5 if middle else 1.0)
        look.setdefault("color", INK)
        for number, line in enumerate(words.split("\n")):
            # A line at a time: of a block of text only the last baseline could be placed.
            below = y + number * LINE_HEIGHT * size * point
            self._axes.text(x, below, line, fontsize=size, ha=align, va="baseline", zorder=self._next(), **look)

    def card(self, box: Box, *, face: str = PAPER, edge: str = GREY, width: float = 1.2, radius: float = 12) -> None:
        """Draw a rectangle with round corners."""
        left, top, wide, high = box
        shape = f"round,pad=0,rounding_size={radius}"
        self._axes.add_patch(
            FancyBboxPatch(
                (left, top), wide, high, shape, facecolor=face, edgecolor=edge, linewidth=width, zorder=self._next()
            )
        )

    def rectangle(self, box: Box, *, face: str, edge: str = INK, width: float = 1.0) -> None:
        """Draw a rectangle."""
        left, top, wide, high = box
        patch = Rectangle((left, top), wide, high, facecolor=face, edgecolor=edge, linewidth=width, zorder=self._next())
        self._axes.add_patch(patch)

    def polygon(self, corners: Sequence[Point], *, face: str, edge: str = INK, width: float = 1.0) -> None:
        """Draw a filled polygon."""
        self._axes.add_patch(
            Polygon(np.array(corners), facecolor=face, edgecolor=edge, linewidth=width, zorder=self._next())
        )

    def badge(self, centre: Point, words: str, *, face: str, radius: float = 13, size: float = 10.5) -> None:
        """Draw a disc with a word or number in it."""
        self._axes.add_patch(Circle(centre, radius, facecolor=face, edgecolor="none", zorder=self._next()))
        self.text(centre, words, size=size, align="center", color=PAPER, weight="bold", middle=True)

    def line(self, points: Sequence[Point], *, colour: str = INK, width: float = 1.6, style: str = "-") -> None:
        """Draw a line through points."""
        x, y = zip(*points, strict=True)
        self._axes.plot(
            x, y, style, color=colour, linewidth=width, solid_joinstyle="miter", zorder=self._next(), scalex=False,
            scaley=False,
        )  # fmt: skip

    def arrow(self, points: Sequence[Point], *, colour: str = INK, width: float = 2.2, head: float = 16) -> None:
        """Draw an arrow along straight pieces; it ends at the last point."""
        if len(points) > 2:
            self.line(points[:-1], colour=colour, width=width)
        self._axes.add_patch(
            FancyArrowPatch(
                points[-2],
                points[-1],
                arrowstyle="-|>,head_width=0.32,head_length=0.55",
                mutation_scale=head,
                shrinkA=0,
                shrinkB=0,
                color=colour,
                linewidth=width,
                zorder=self._next(),
            )
        )

    def picture(self, pixels: Pixels, at: Point, side: float, *, edge: str = INK, width: float = 1.0) -> None:
        """Place a square picture; `at` is its upper left corner."""
        left, top = at
        # More pixels than two a unit are not seen, but would weigh in the repository.
        small = Image.fromarray(pixels).resize([min(round(2 * side), pixels.shape[0])] * 2, Image.Resampling.LANCZOS)
        self._axes.imshow(
            np.asarray(small),
            extent=(left, left + side, top + side, top),
            interpolation="none",
            aspect="auto",
            zorder=self._next(),
            resample=False,
        )
        self._axes.set(xlim=self._axes.get_xlim(), ylim=self._axes.get_ylim())
        frame = Rectangle((left, top), side, side, fill=False, edgecolor=edge, linewidth=width, zorder=self._next())
        self._axes.add_patch(frame)
