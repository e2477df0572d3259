"""Whether image files exist, decode, and have the size that the annotations say."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tqdm import tqdm

from segloop.data.images import ImageError, image_size, open_image

THREADS: Final = 8
_AHEAD: Final = 2 * THREADS


def examine_images(paths: Iterable[Path], total: int | None, *, decode: bool = True) -> Iterator[tuple[int, int] | str]:
    """Yield for each image its width and height, or why it cannot be used.

    Parameters
    ----------
    decode
        Decode every pixel, which finds truncated files; else only the heads are read.
    """
    look = _decoded if decode else _head
    with ThreadPoolExecutor(THREADS) as threads, tqdm(
        total=total, desc="images", unit="image", disable=None
    ) as bar:  # fmt: skip
        # A few at a time, so that a list of millions is not held in memory.
        waiting: deque[Future[tuple[int, int] | str]] = deque()
        for path in paths:
            waiting.append(threads.submit(look, path))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
                bar.update()
        while waiting:
            yield waiting.popleft().result()
            bar.update()


def _decoded(path: Path) -> tuple[int, int] | str:
    try:
        height, width = open_image(path).shape[:2]
    except ImageError as error:
        return str(error)
    except MemoryError:
        return f"{path} does not fit in memory"
    return width, height


def _head(path: Path) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except ImageError as error:
        return str(error)
