"""A labelled set, whatever its format: images with their annotations, one image at a time.

Each format has a module with a `Reader`; `segloop.data.formats.open_dataset` finds it by its word and wraps it in a
`LabelledSet`, which chooses images (list, split), maps categories, numbers annotations and counts what was used.
"""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from segloop.data import masks
from segloop.data.categories import CategoryMap
from segloop.data.masks import MaskError, Rle
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

logger = logging.getLogger("segloop")

Record = dict[str, Any]
Choice = Callable[[Path], bool]
"""Whether the image of a path is read."""


def every_image(path: Path) -> bool:
    """Choose all images."""
    return True


class Reader(ABC):
    """What the module of a format provides.

    Attributes
    ----------
    source
        The annotation file or folder, for messages.
    report
        Takes the images and annotations that cannot be used.
    chosen
        Which images are read; of the others no file is opened and nothing is reported.
    categories
        By id; formats that name categories only where they occur add them while they are read.
    """

    def __init__(
        self,
        source: Path,
        report: SkipReport,
        *,
        chosen: Choice = every_image,
        categories: dict[int, Record] | None = None,
    ) -> None:
        self.source = source
        self.report = report
        self.chosen = chosen
        self.categories = categories if categories is not None else {}

    @abstractmethod
    def images(self) -> Iterator[Record]:
        """Yield each image: `id`, `file_name` (a path that opens), `width`, `height`, and what the format adds.

        No mask is read. Unusable images go to the report.
        """

    def place(self, image: Record) -> tuple[Path, str]:
        """Return the file and the record to name when nothing of an image can be used."""
        return self.source, f"image {image['id']}"

    @abstractmethod
    def annotations(self, image: Record) -> Iterator[Record]:
        """Yield the annotations of one image, as `annotation` makes them; their ids are given later.

        Raises
        ------
        SegloopError
            If nothing of the image can be used, such as a PNG of another size.
        """


class LabelledSet:
    """A labelled set that is read image by image, in constant memory.

    Attributes
    ----------
    source
        The annotation file or folder.
    report
        What was skipped and what was changed, as far as the set has been read.
    """

    def __init__(self, reader: Reader, category_map: CategoryMap | None = None) -> None:
        self._reader = reader
        self._map = category_map
        self.source = reader.source
        self.report = reader.report

    @property
    def categories(self) -> list[Record]:
        """The categories, each with `id` and `name`; complete once the set has been read."""
        known = self._map.categories if self._map is not None else self._reader.categories
        return list(known.values())

    def images(self) -> Iterator[Record]:
        """Yield the images alone; a matter of file heads."""
        yield from self._reader.images()

    def labelled(self, images: Iterable[Record] | None = None) -> Iterator[tuple[Record, list[Record]]]:
        """Yield each image with its annotations in canonical form, numbered from 1 in this order.

        Parameters
        ----------
        images
            Some of what `images` gives, in any order; None: all of it.
        """
        number = 0
        left_out: Counter[int] = Counter()
        chosen = self._reader.images() if images is None else images
        for image in tqdm(chosen, desc=self.source.name, unit="image", disable=None):
            try:
                found = list(self._reader.annotations(image))
            except SegloopError as error:
                self.report.skip(*self._reader.place(image), str(error))
                continue
            kept = []
            for one in found:
                target = self._map.target(one["category_id"]) if self._map is not None else one["category_id"]
                if target is None:
                    left_out[one["category_id"]] += 1
                    continue
                number += 1
                kept.append(one | {"id": number, "category_id": target})
            self.report.use(1 + len(kept))
            yield image, [_with_source(one) for one in kept]
        for category, count in sorted(left_out.items()):
            name = self._reader.categories.get(category, {}).get("name")
            self.report.note(
                self.source, f"category {category} ({name})", f"{count} annotations left out by category_map"
            )


def annotation(number: int, image_id: int, category_id: int, rle: Rle, *, crowd: bool = False, **extra: Any) -> Record:
    """Return a canonical annotation; area and box come from the mask.

    Parameters
    ----------
    number
        Its id; readers give 0, the set gives the number.
    extra
        Further keys, such as `score`; None leaves a key out.

    Raises
    ------
    MaskError
        If the mask is empty.
    """
    size = int(masks.area([rle])[0])
    if size == 0:
        raise MaskError("has an empty mask")
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": masks.to_json(rle),
        "area": size,
        "bbox": masks.boxes([rle])[0].tolist(),
        "iscrowd": int(crowd),
    } | {key: value for key, value in extra.items() if value is not None}


def _with_source(one: Record) -> Record:
    """Drop the source's number where it is the number already."""
    return {key: value for key, value in one.items() if key != "source_id" or value not in (None, one["id"])}


def whole(dataset: LabelledSet) -> Record:
    """Return all of a set at once, as the canonical file holds it; for sets that fit in memory."""
    images, annotations = [], []
    for image, found in dataset.labelled():
        images.append(image)
        annotations += found
    return {
        "info": {"source": dataset.source.name},
        "images": images,
        "annotations": annotations,
        "categories": dataset.categories,
    }
