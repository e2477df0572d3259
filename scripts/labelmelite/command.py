"""What `segloop label` does with its options."""

import argparse
import os
from pathlib import Path
from typing import Any

from labelmelite.images import as_root, is_url
from labelmelite.server import Opened, serve
from labelmelite.settings import read_settings
from labelmelite.sources.base import Source
from labelmelite.sources.coco import CocoSource
from labelmelite.sources.folder import folder_source
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
        from labelmelite.loop.opening import open_run

        run = open_run(options.run, options.iteration)
        return run, run.data
    if options.images is None:
        raise SegloopError("nothing to label: name --run DIR, or --images DIR, with --annotations FILE or alone")
    return _DataSet(options.annotations, options.images), _beside(options.annotations, options.images)


class _DataSet:
    """A data set without the loop."""

    question = None

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

    def start(self, *_: Any) -> None:
        """There is no loop."""


def _beside(annotations: Path | None, images: str) -> Path:
    place = annotations if annotations is not None else Path(images.rstrip("/"))
    place = place.resolve()
    if os.access(place.parent, os.W_OK):
        return place.with_name(f"{place.stem if annotations is not None else place.name}.labelmelite")
    share = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return share / "labelmelite" / place.name
