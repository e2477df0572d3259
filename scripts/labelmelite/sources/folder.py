"""A folder of images alone: every picture below it, in the order of its name."""

import hashlib
import os
from pathlib import Path

from labelmelite.sources.base import Image, ListSource
from segloop.errors import SegloopError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2")


def folder_source(folder: Path, name: str | None = None) -> ListSource:
    """Return the images of a folder and of the folders in it.

    Raises
    ------
    SegloopError
        If there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise SegloopError(f"{folder} is no folder. Name a folder of images with --images.")
    skipped: list[dict[str, str]] = []
    names = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in files:
            if file.startswith(".") or not file.lower().endswith(SUFFIXES):
                continue
            path = (Path(place) / file).relative_to(folder).as_posix()
            if path.isprintable():
                names.append(path)
            else:
                skipped.append({"record": ascii(path), "reason": "the file name cannot be shown; rename the file"})
    if not names:
        raise SegloopError(f"{folder} holds no images ({', '.join(SUFFIXES)}).")
    names.sort()
    root = str(folder.resolve())
    return ListSource(
        name=name or folder.resolve().name,
        kind="folder",
        key=f"folder {root}",
        fingerprint=hashlib.sha256("\n".join(names).encode()).hexdigest(),
        root=root,
        image_list=[Image(number, path) for number, path in enumerate(names, start=1)],
        skipped=skipped,
    )
