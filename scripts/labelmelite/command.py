"""What `segloop label` does with its options."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from labelmelite.images import Pixels, as_root, is_url
from labelmelite.server import serve
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
    for name in ("public", "adapter", "copies"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.no_tokens:
        given["tokens"] = False
    settings = read_settings(options.settings, opened.defaults, **given)
    allowed = tuple(as_root(root) for root in options.allow)
    return serve(settings, opened, allowed=allowed, open_browser=options.open)


def bundle_out(options: argparse.Namespace) -> int:
    """Write questions of a run as files."""
    from labelmelite.crowd.exchange import send

    with _loop(options, lease_days=options.days) as (session, store, pixels):
        made = send(session, store, pixels, options.name, options.tasks, options.output)
    for folder in made:
        print(f"{folder}: open it with `segloop label --bundle {folder / 'bundle.json'}`")
    if len(made) < options.tasks:
        print(f"no more questions are open now: {len(made)} of {options.tasks} bundles were made")
    return 0


def bundle_in(options: argparse.Namespace) -> int:
    """Take answered bundles back into a run."""
    from labelmelite.crowd.exchange import receive

    with _loop(options) as (session, _, _):
        for path in options.files:
            taken, refused = receive(session, path)
            print(f"{path}: {taken} answers taken" + "".join(f"\n  {line}" for line in refused))
    return 0


@contextlib.contextmanager
def _loop(options: argparse.Namespace, lease_days: float = 1.0) -> Iterator[tuple[Work, Store, Pixels]]:
    """Open an iteration of the loop without a server."""
    from labelmelite.loop.session import LoopSession
    from labelmelite.loop.settings import LoopSettings

    run = _Run(options.run, options.iteration)
    data = options.data or run.data
    settings = read_settings(None, data=data)
    store = Store(data)
    try:
        question = replace(settings.question, t_iou=run.iteration.config.annotation.t_iou)
        session = LoopSession(run.iteration, store, LoopSettings(lease_seconds=lease_days * 86_400), question)
        try:
            yield session, store, Pixels(data / "cache", run.roots, settings.cache_bytes)
        finally:
            session.close()
    finally:
        store.close()


def _opened(options: argparse.Namespace) -> "tuple[_DataSet | _Run | _Bundle, Path]":
    """Return what is labelled and where its database lies by default."""
    if options.run is not None:
        if options.images is not None or options.annotations is not None or options.bundle is not None:
            raise SegloopError("name one thing to label: --run, or --bundle, or --images with or without --annotations")
        run = _Run(options.run, options.iteration)
        return run, run.data
    if options.bundle is not None:
        return _Bundle(options.bundle, options.images), _beside(options.bundle, "")
    if options.images is None:
        raise SegloopError(
            "nothing to label: name --run DIR, or --bundle FILE, or --images DIR with --annotations FILE or alone"
        )
    return _DataSet(options.annotations, options.images), _beside(options.annotations, options.images)


class _DataSet:
    """A data set without the loop."""

    defaults: Final[dict[str, Any]] = {}

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

    def __init__(self, run: Path, number: int | None) -> None:
        from labelmelite.loop.iteration import load_iteration, waiting_iteration

        run = run.resolve()
        self.iteration = load_iteration(run, number if number is not None else waiting_iteration(run))
        self.roots = tuple(str(root) for root in self.iteration.roots)
        wage = self.iteration.config.annotation.hourly_wage
        self.defaults: dict[str, Any] = {"wage": wage} if wage > 0 else {}
        # Beside the answers, which are an input of the loop: no clean-up reaches them.
        self.data = self.iteration.answers_root / "labelmelite"

    def sources(self) -> list[Source]:
        """Return the masks that the run has collected."""
        from labelmelite.loop.sources import sources_of

        return sources_of(self.iteration)

    def start(self, store: Store, settings: Settings, pixels: Pixels) -> Work | None:
        """Return the session of the iteration."""
        from labelmelite.loop.session import LoopSession

        question = replace(settings.question, t_iou=self.iteration.config.annotation.t_iou)
        return LoopSession(self.iteration, store, settings.loop, question)


class _Bundle:
    """A file of questions from elsewhere."""

    defaults: Final[dict[str, Any]] = {}

    def __init__(self, bundle: Path, images: str | None) -> None:
        self._bundle = bundle
        self.roots = (as_root(images if images is not None else str(bundle.resolve().parent)),)

    def sources(self) -> list[Source]:
        """Return the masks of the bundle as a data set."""
        return [CocoSource(self._bundle, self.roots[0], kind="bundle")]

    def start(self, store: Store, settings: Settings, pixels: Pixels) -> Work | None:
        """Return what asks the questions of the bundle."""
        from labelmelite.crowd.bundles import BundleSession

        return BundleSession(self._bundle, self.roots[0], store, settings.question)


def _beside(annotations: Path | None, images: str) -> Path:
    place = annotations if annotations is not None else Path(images.rstrip("/"))
    place = place.resolve()
    if os.access(place.parent, os.W_OK):
        return place.with_name(f"{place.stem if annotations is not None else place.name}.labelmelite")
    share = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return share / "labelmelite" / place.name
