"""Pixels: images from allowed folders and URL bases, upright, scaled or cut, and kept in a cache.

Requests name records of the database, never paths. A file is opened only if, with all links resolved, it lies in an
allowed folder.
"""

import hashlib
import io
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from PIL import Image

from labelmelite.errors import ApiError
from labelmelite.fetching import Fetcher
from segloop.data import coco_tables
from segloop.data import images as image_files
from segloop.data.images import ImageError
from segloop.errors import SegloopError
from segloop.files import atomic_file

logger = logging.getLogger("labelmelite")

Result = TypeVar("Result")

MAX_SIDE: Final = 8192
_DECODED: Final = 6
_QUALITY: Final = 90


class Pixels:
    """Gives images as a browser shows them.

    Parameters
    ----------
    cache
        A folder for fetched images, scaled images and crops.
    roots
        Allowed folders and URL bases.
    cache_bytes
        The cache is thinned out above this.
    """

    def __init__(self, cache: Path, roots: tuple[str, ...], cache_bytes: int) -> None:
        self.cache = cache
        self.cache_bytes = cache_bytes
        self._written = 0
        self._folders = [Path(root).resolve() for root in roots if not is_url(root)]
        self._urls = tuple(root for root in roots if is_url(root))
        self._fetcher = Fetcher(self._urls)
        self._decoded: OrderedDict[tuple[Path, int], Image.Image] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(os.cpu_count() or 2)

    def allow(self, root: str) -> None:
        """Allow one more folder or URL base."""
        if is_url(root):
            self._urls = (*self._urls, root)
            self._fetcher = Fetcher(self._urls)
        else:
            self._folders.append(Path(root).resolve())

    def roots(self) -> list[str]:
        """Return what is allowed."""
        return [*map(str, self._folders), *self._urls]

    def file(self, root: str, name: str) -> Path:
        """Return the file of an image, fetched where it comes from a URL.

        Raises
        ------
        ApiError
            If it is not allowed, not there, or cannot be fetched.
        """
        if is_url(root):
            return self._fetched(root, name)
        try:
            path = coco_tables.safe_path(Path(root), name).resolve()
        except (SegloopError, OSError, RuntimeError) as error:
            raise ApiError("forbidden", f"The image {error}.") from None
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise ApiError(
                "forbidden", f"{name} lies outside the allowed image folders. Start the server with --allow FOLDER."
            )
        try:
            there = path.is_file()
        except OSError as error:
            raise ApiError("not_found", f"The image file {_short(name)} cannot be opened: {error.strerror}.") from None
        if not there:
            raise ApiError("not_found", f"The image file {_short(name)} is missing.")
        if not os.access(path, os.R_OK):
            raise ApiError(
                "forbidden", f"The server may not read the image {_short(name)}. Give its user the right to."
            )
        return path

    def tag(self, root: str, name: str, what: str) -> str:
        """Return the ETag of what is made of an image: another one for another file, or when the file changes."""
        path = self.file(root, name)
        status = _readable(name, path.stat)
        key = f"{path}\x1f{status.st_mtime_ns}\x1f{status.st_size}\x1f{what}"
        return f'"{hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]}"'

    def size(self, root: str, name: str) -> tuple[int, int]:
        """Return (width, height) of the upright image in pixels."""
        return _readable(name, lambda: image_files.image_size(self.file(root, name)))

    def upright(self, root: str, name: str, side: int | None = None) -> tuple[bytes, str]:
        """Return an image as JPEG or PNG and its media type.

        Parameters
        ----------
        side
            Scale it down to at most this many pixels a side; None: as it is.
        """
        path = self.file(root, name)
        if side is None and (plain := _plain_type(name, path)) is not None:
            return _readable(name, path.read_bytes), plain
        lossless = side is None and path.suffix.lower() not in (".jpg", ".jpeg")
        media = "image/png" if lossless else "image/jpeg"

        def make() -> Image.Image:
            image = self._image(name, path)
            if side is not None and max(image.size) > side:
                image = image.copy()
                image.thumbnail((side, side), Image.Resampling.LANCZOS)
            return image

        return self._cached(name, path, f"upright {side}", make, "PNG" if lossless else "JPEG"), media

    def crop(self, root: str, name: str, x: float, y: float, side: float, out: int) -> bytes:
        """Return a square piece of an image as JPEG; what lies outside the image is black.

        Parameters
        ----------
        x, y, side
            The piece in image pixels.
        out
            Its side in the result, in pixels.
        """
        path = self.file(root, name)
        out = min(max(out, 8), 2048)

        def make() -> Image.Image:
            image = self._image(name, path)
            box = (x, y, x + side, y + side)
            inside = (max(x, 0.0), max(y, 0.0), min(x + side, float(image.width)), min(y + side, float(image.height)))
            canvas = Image.new("RGB", (out, out))
            if inside[0] >= inside[2] or inside[1] >= inside[3]:
                return canvas
            scale = out / side
            left, top = round((inside[0] - box[0]) * scale), round((inside[1] - box[1]) * scale)
            right, bottom = round((inside[2] - box[0]) * scale), round((inside[3] - box[1]) * scale)
            if right > left and bottom > top:
                piece = image.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=inside, reducing_gap=3)
                canvas.paste(piece, (left, top))
            return canvas

        return self._cached(name, path, f"crop {x:.3f} {y:.3f} {side:.3f} {out}", make, "JPEG")

    def _image(self, name: str, path: Path) -> Image.Image:
        """Return an upright image; the last few are kept, because a page asks for several pieces of one."""
        key = (path, _readable(name, path.stat).st_mtime_ns)
        known = self._kept(key)
        if known is not None:
            return known
        # As many at a time as there are cores: thirty crops at once must not hold thirty whole images.
        with self._decoding:
            known = self._kept(key)
            if known is not None:
                return known
            made = _readable(name, lambda: Image.fromarray(np.ascontiguousarray(image_files.open_image(path))))
            with self._lock:
                self._decoded[key] = made
                while len(self._decoded) > _DECODED:
                    self._decoded.popitem(last=False)
            return made

    def _kept(self, key: tuple[Path, int]) -> Image.Image | None:
        with self._lock:
            known = self._decoded.get(key)
            if known is not None:
                self._decoded.move_to_end(key)
            return known

    # --- the cache

    def _cached(self, name: str, path: Path, what: str, make: Callable[[], Image.Image], kind: str) -> bytes:
        status = _readable(name, path.stat)
        place = self._place(f"{path}\x1f{status.st_mtime_ns}\x1f{status.st_size}\x1f{what}")
        try:
            return place.read_bytes()
        except OSError:
            pass
        buffer = io.BytesIO()
        if kind == "JPEG":
            make().save(buffer, "JPEG", quality=_QUALITY)
        else:
            make().save(buffer, "PNG", compress_level=3)
        self._keep(place, buffer.getvalue())
        return buffer.getvalue()

    def _fetched(self, root: str, name: str) -> Path:
        place = self._place(f"{root}\x1f{name}").with_suffix(Path(name).suffix.lower()[:6])
        if not place.exists():
            data = self._fetcher.fetch(root, name)
            self._keep(place, data, needed=True)
        return place

    def _place(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.cache / digest[:2] / digest[2:40]

    def _keep(self, place: Path, data: bytes, needed: bool = False) -> None:
        try:
            with atomic_file(place) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            if needed:
                raise ApiError("storage", f"The image could not be kept ({error.strerror}).") from None
        with self._lock:
            self._written += len(data)
            full = self._written > self.cache_bytes // 8
            if full:
                self._written = 0
        if full:
            self.thin()

    def thin(self) -> None:
        """Remove the oldest files of the cache until it is a tenth below its limit."""
        found = []
        for place, _, files in os.walk(self.cache):
            for file in files:
                path = Path(place) / file
                try:
                    status = path.stat()
                except OSError:
                    continue
                found.append((status.st_atime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found) if total > self.cache_bytes else []:
            if total <= self.cache_bytes * 0.9:
                break
            path.unlink(missing_ok=True)
            total -= size


def is_url(root: str) -> bool:
    """Return whether a root is a URL base, not a folder."""
    return root.startswith(("http://", "https://"))


def as_root(text: str) -> str:
    """Return a folder as an absolute path, or a URL base that ends in "/"."""
    return text.rstrip("/") + "/" if is_url(text) else str(Path(text).resolve())


def _plain_type(name: str, path: Path) -> str | None:
    """Return the media type of a file that browsers show as we would: 8 bits, upright, JPEG or PNG."""

    def look() -> str | None:
        with Image.open(path) as image:
            width, height = image_files.image_size(path)
            upright = image.getexif().get(0x0112, 1) == 1 and (width, height) == image.size
            if upright and (image.format, image.mode) in (("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L")):
                return f"image/{str(image.format).lower()}"
            return None

    return _readable(name, look)


def _short(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:97]}..."


def _readable(name: str, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except ApiError:
        raise
    except MemoryError:
        raise ApiError("unavailable", f"The image {name} is too large for the server's memory.") from None
    except (ImageError, OSError, ValueError, SyntaxError) as error:
        # The reason may hold paths of the server, which are nothing for a page.
        logger.warning("%s: %s", name, error)
        large = isinstance(error, ImageError) and "more than the limit" in str(error)
        reason = "it has too many pixels" if large else "it is damaged or no image"
        raise ApiError("unavailable", f"The image {name} cannot be read: {reason}.") from None
