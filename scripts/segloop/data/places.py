"""The image lists of Places365."""

from collections.abc import Iterator
from pathlib import Path

from segloop.errors import SegloopError


def read_places_list(path: Path) -> Iterator[str]:
    """Yield the image paths of a Places365 list, one line at a time, relative to the image folder.

    A line is `/a/airfield/00000001.jpg 0`: a leading slash, scenes that may be nested, and a label that may be missing.
    Blanks in a name are kept; only a whole number after the last blank is taken for a label.

    Raises
    ------
    SegloopError
        If the list is missing or not text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                name = line.strip()
                head, *label = name.rsplit(None, 1) or [""]
                name = head if label and label[0].lstrip("-").isdecimal() else name
                if name:
                    yield name.lstrip("/")
    except FileNotFoundError:
        raise SegloopError(f"the image list {path.absolute()} does not exist. Check data_root and pool.list.") from None
    except OSError as error:
        raise SegloopError(f"the image list {path.absolute()} cannot be read ({error}). Check pool.list.") from None
    except UnicodeDecodeError as error:
        raise SegloopError(f"the image list {path} is not text in UTF-8 ({error}).") from None
