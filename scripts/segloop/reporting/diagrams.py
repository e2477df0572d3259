"""Drawings for the documents: `python -m segloop.reporting.diagrams docs/`."""

from pathlib import Path


def draw_all(folder: Path) -> None:
    """Write loop.{svg,png}, model.{svg,png} and overview.png to `folder`."""
    raise NotImplementedError
