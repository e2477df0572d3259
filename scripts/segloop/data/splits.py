"""Cutting a set into parts by seed, such as ADE20K into a labelled half A and a pool B (thesis, section 3.3).

Where an image goes depends on its own name, or its group's, and on the seed alone: what was skipped, added or missing
elsewhere moves no other image, so that two readings of a set never share one (decision 024).
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from segloop.config import SplitConfig
from segloop.data.categories import read_lines
from segloop.data.images import IMAGE_SUFFIXES
from segloop.data.labelled import Choice
from segloop.errors import SegloopError
from segloop.randomness import seed_of


def part_of(key: str, shares: Sequence[float], seed: int) -> int:
    """Return the number of the part, from 0, that a key belongs to.

    Parameters
    ----------
    key
        The name of an image or of a group.
    shares
        Sizes of the parts, which sum to 1.
    """
    place = seed_of("split", seed, key) / 2**63
    return next((part for part, end in enumerate(accumulate(shares)) if place < end), len(shares) - 1)


def split_choice(config: SplitConfig, images: Path, data_root: Path) -> Choice:
    """Return which images belong to the configured part.

    Parameters
    ----------
    images
        The folder that names are relative to.

    Raises
    ------
    SegloopError
        If the table is missing; by the choice itself, if the table does not name an image.
    """
    wanted = ord(config.part) - ord("A")
    table = _read_table(data_root / config.table) if config.table is not None else {}

    def chosen(path: Path) -> bool:
        name = name_below(images, path)
        key = name.as_posix()
        if config.by == "folder":
            key = name.parent.as_posix()
        elif config.by == "table":
            if name.name not in table and key not in table:
                raise SegloopError(f"{config.table} has no line for {key}. Each image needs one, or split by: image.")
            key = table.get(key) or table[name.name]
        return part_of(key, config.shares, config.seed) == wanted

    return chosen


def list_choice(path: Path, images: Path) -> Choice:
    """Return which images a list names, one a line, with or without folder and suffix."""
    names = {_bare(line.strip().lstrip("/")) for line in _names(path)}

    def chosen(image: Path) -> bool:
        name = name_below(images, image)
        return name.as_posix() in names or name.name in names

    return chosen


def name_below(folder: Path, path: Path) -> Path:
    """Return the name of an image below its folder, without suffix; the bare one of an image elsewhere."""
    try:
        return path.relative_to(folder).with_suffix("")
    except ValueError:
        return Path(path.stem)


def _names(path: Path) -> list[str]:
    lines = [line for line in read_lines(path, "list of images") if line.strip()]
    if not lines:
        raise SegloopError(f"the list of images {path} is empty.")
    return lines


def _read_table(path: Path) -> dict[str, str]:
    """Return keys by image name without suffix, from lines of a name, a blank and a key."""
    table = {}
    for line in _names(path):
        name, *key = line.split(None, 1)
        if not key:
            raise SegloopError(f"{path}: the line {line!r} needs an image name, a blank and a key.")
        table[_bare(name)] = key[0].strip()
    return table


def _bare(name: str) -> str:
    # Names without suffix may hold dots.
    return name.rsplit(".", 1)[0] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
