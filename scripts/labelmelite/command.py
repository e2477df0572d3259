"""What `segloop label` does with its options."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from labelmelite.images import Pixels, as_root, is_url
from labelmelite.server import Opened, serve
from labelmelite.settings import Settings, read_settings
from labelmelite.sources.base import Source
from labelmelite.sources.coco import CocoSource
from labelmelite.sources.folder import folder_source
from labelmelite.store import Store
from labelmelite.work import Work
from segloop.errors import SegloopError


def label(options: argparse.Namespace) -> int:
    """Serve what the options name, until the server is told to stop."""
    opened, data = _opened(options)
    given: dict[str, Any] = {"data": options.data or data, "host": options.host, "port": options.port}
    for name in ("public", "adapter"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.no_tokens:
        given["tokens"] = False
    settings = read_settings(options.settings, **given)
    allowed = tuple(as_root(root) for root in options.allow)
    return serve(settings, opened, allowed=allowed, open_browser=options.open)


def _opened(options: argparse.Namespace) -> tuple[Opened, Path]:
    """Return what is labelled and where its database lies by default."""
    if options.run is not None:
        if options.images is not None or options.annotations is not None:
            raise SegloopError("name either --run or --images, not both")
        run = _Run(options.run, options.iteration)
        return run, run.data
    if options.images is None:
        raise SegloopError("nothing to label: name --run DIR, or --images DIR, with --annotations FILE or alone")
    return _DataSet(options.annotations, options.images), _beside(options.annotations, options.images)


class _DataSet:
    """A data set without the loop."""

    def __init__(self, annotations: Path | None, images: str) -> None:
        self._annotations, self._images = annotations, images
        self.roots = (as_root(images),)

    def sources(self) -> list[Source]:
        """Return the data set."""
        if self._annotations is not None:
            return [CocoSource(self._annotations, self.roots[0])]
        if is_url(self._images):
            raise SegloopError("a URL cannot be listed; name the COCO file of its images with --annotations")
        return [folder_source(Path(self._images))]

    def start(self, store: Store, settings: Settings, pixels: Pixels) -> Work | None:
        """Return nothing: there are no questions."""
        return None


class _Run:
    """An iteration of the loop."""

    roots: tuple[str, ...] = ()

    def __init__(self, run: Path, number: int | None) -> None:
        from labelmelite.loop.iteration import configuration_of, waiting_iteration

        self._run = run.resolve()
        self._config = configuration_of(self._run)
        self._number = number if number is not None else waiting_iteration(self._run)
        # Beside the answers, which are an input of the loop: no clean-up reaches them.
        self.data = self._run / self._config.annotation.answers_root / "labelmelite"

    def sources(self) -> list[Source]:
        """Return the masks that the run has collected."""
        return []

    def start(self, store: Store, settings: Settings, pixels: Pixels) -> Work | None:
        """Return the session of the iteration."""
        from labelmelite.loop.session import open_session

        question = replace(settings.question, t_iou=self._config.annotation.t_iou)
        session = open_session(self._run, self._number, store, None, question)
        for root in session.iteration.roots:
            pixels.allow(str(root))
        return session


def _beside(annotations: Path | None, images: str) -> Path:
    place = annotations if annotations is not None else Path(images.rstrip("/"))
    place = place.resolve()
    if os.access(place.parent, os.W_OK):
        return place.with_name(f"{place.stem if annotations is not None else place.name}.labelmelite")
    share = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return share / "labelmelite" / place.name
