"""Reading images: whatever a folder of photographs holds becomes height x width x 3 RGB."""

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
            with Image.open(path) as image:
                _check_size(path, *image.size)
                yield image
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Damaged files make Pillow's decoders raise almost anything: OSError, struct.error, SyntaxError, KeyError...
        raise ImageError(f"{path} cannot be read as an image ({error})") from None


def _check_size(path: str | Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path} has {width} x {height} pixels, more than the limit of {MAX_PIXELS}")


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
