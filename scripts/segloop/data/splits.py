"""Cutting a set into parts by seed, such as ADE20K into a labelled half A and a pool B (thesis, section 3.3).

Where an image goes depends on its own name, or its group's, and on the seed alone: what was skipped, added or missing
elsewhere moves no other image, so that two readings of a set never share one (decision 024).
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from segloop.config import SplitConfig
from segloop.data.images import IMAGE_SUFFIXES
from segloop.data.labelled import Choice
from segloop.data.on_disk import DiskTable
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
    table = _read_table(data_root / config.table) if config.table is not None else None

    def chosen(path: Path) -> bool:
        name = name_below(images, path)
        key = name.as_posix()
        if config.by == "folder":
            key = name.parent.as_posix()
        elif table is not None and config.by == "table":
            group = table.get(key) or table.get(name.name)
            if group is None:
                raise SegloopError(f"{config.table} has no line for {key}. Each image needs one, or split by: image.")
            key = group
        return part_of(key, config.shares, config.seed) == wanted

    return chosen


def list_choice(path: Path, images: Path) -> Choice:
    """Return which images a list names, one a line, with or without folder and suffix."""
    names: DiskTable[str, None] = DiskTable()
    for line in _names(path):
        names[_bare(line.strip().lstrip("/"))] = None

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


def _names(path: Path) -> Iterator[str]:
    empty = True
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    empty = False
                    yield line.rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SegloopError(
            f"the list of images {path.absolute()} cannot be read ({error}). Check data_root and the path."
        ) from None
    if empty:
        raise SegloopError(f"the list of images {path} is empty.")


def _read_table(path: Path) -> DiskTable[str, str]:
    """Return keys by image name without suffix, from lines of a name, a blank and a key."""
    table: DiskTable[str, str] = DiskTable()
    for line in _names(path):
        name, *key = line.split(None, 1)
        if not key:
            raise SegloopError(f"{path}: the line {line!r} needs an image name, a blank and a key.")
        table[_bare(name)] = key[0].strip()
    return table


def _bare(name: str) -> str:
    # Names without suffix may hold dots.
    return name.rsplit(".", 1)[0] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
