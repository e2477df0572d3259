"""What `segloop label` does with its options."""

import argparse
import os
from pathlib import Path

from labelmelite.server import serve, source_of
from labelmelite.settings import Settings
from segloop.errors import SegloopError


def label(options: argparse.Namespace) -> int:
    """Serve what the options name."""
    if options.images is None:
        raise SegloopError("nothing to label: name --run DIR, or --images DIR, with --annotations FILE or alone")
    source = source_of(options.annotations, options.images)
    data = options.data or _beside(options.annotations, options.images)
    settings = Settings(data=data, host=options.host, port=options.port)
    return serve(settings, source, open_browser=options.open)


def _beside(annotations: Path | None, images: str) -> Path:
    beside = annotations.parent if annotations is not None else Path(images).resolve().parent
    name = annotations.stem if annotations is not None else Path(images).resolve().name
    if os.access(beside, os.W_OK):
        return beside / f"{name}.labelmelite"
    share = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return share / "labelmelite" / name
