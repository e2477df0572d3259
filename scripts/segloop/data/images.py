"""Reading images: whatever a folder of photographs holds becomes height x width x 3 RGB."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from segloop.errors import SegloopError

# A photograph of more pixels than this is a mistake or an attack (a small file that decodes to gigabytes).
# Pillow itself refuses more than twice its warning limit, which is this number.
MAX_PIXELS = 178_956_970
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


class ImageError(SegloopError):
    """An image that cannot be read; the message names the file and the reason."""


def open_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read an image as RGB, uint8 of shape (height, width, 3).

    Greyscale, 16-bit, palette, RGBA and CMYK files are converted; the rotation in a photograph's EXIF data is
    applied, so that pixels are where people see them.

    Raises
    ------
    ImageError
        If the file is missing, truncated, no image, or larger than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (width, height) in pixels as people see the image, from the file's head alone.

    Raises
    ------
    ImageError
        If the file is missing or no image.
    """
    with _opened(path) as image:
        # Pillow gives a TIFF its turned size at once, other files when they are transposed.
        turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def image_mode(path: str | Path) -> str:
    """Return Pillow's name of the pixel format ("RGB", "L", ...), from the file's head alone.

    Raises
    ------
    ImageError
        If the file is missing or no image.
    """
    with _opened(path) as image:
        return image.mode


def open_labels(path: str | Path) -> npt.NDArray[np.integer[Any]]:
    """Read the numbers of an annotation PNG as they stand in the file, without any conversion.

    Returns
    -------
    Shape (height, width) for greyscale of 8 or 16 bits and for palette indices, (height, width, 3) for RGB.

    Raises
    ------
    ImageError
        If the file is missing, truncated, no image, larger than `MAX_PIXELS`, or of another kind.
    """
    with _opened(path) as image:
        image.load()
        if image.mode == "RGBA":
            image = image.convert("RGB")
        if image.mode == "LA":
            image = image.convert("L")
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8) * np.uint8(255)
        if image.mode not in ("L", "P", "RGB") and not image.mode.startswith("I"):
            raise ImageError(f"{path} has pixels of mode {image.mode}; annotations are greyscale, palette or RGB")
        return np.array(image)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # What Pillow only warns of (odd metadata, very large images) is either harmless or checked here.
            warnings.simplefilter("ignore")
            with Path(path).open("rb") as file, Image.open(_Bounded(file)) as image:
                _check_size(path, image)
                yield image
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Damaged files make Pillow's decoders raise almost anything: OSError, struct.error, SyntaxError, KeyError...
        raise ImageError(f"{path} cannot be read as an image ({error})") from None


class _Bounded(io.BufferedReader):
    """A file that takes no more memory for a read than it has left; damaged PNGs ask for gigabytes at once."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file.raw)
        self._path = file.name
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))

    def __repr__(self) -> str:
        return repr(str(self._path))


# Deflate makes at most so many bytes of one (RFC 1951: 258 bytes of two bits).
_MOST_OF_A_BYTE = 1032


def _check_size(path: str | Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path} has {width} x {height} pixels, more than the limit of {MAX_PIXELS}")
    bits = {"RGB": 24, "RGBA": 32, "LA": 16, "I;16": 16}.get(image.mode, 1)
    length = Path(path).stat().st_size if image.format == "PNG" else 0
    if length and width * height * bits > length * _MOST_OF_A_BYTE * 8:
        raise ImageError(f"{path} has {width} x {height} pixels by its head, which {length} bytes cannot hold")


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        # Greyscale of 16 bits and more: Pillow would clip at 255, so the range is scaled instead.
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        top = _white(image.mode, float(values.max(initial=0.0)))
        grey = np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P":
        # The detour keeps palettes with transparency from a wrong colour.
        image = image.convert("RGBA")
    # A copy, because Pillow's own array cannot be written to.
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _white(mode: str, largest: float) -> float:
    """Return the value that stands for white in a greyscale image of more than 8 bits."""
    if mode == "F" and largest <= 1:
        return 1.0
    return 65535.0 if largest > 255 else 255.0
