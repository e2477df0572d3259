"""COCO and its relatives: data set, results, LVIS, and the folder that FiftyOne, CVAT and datumaro read."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from segloop import __version__
from segloop.data.exports.base import Export
from segloop.data.labelled import Record
from segloop.data.on_disk import DiskTable
from segloop.errors import SegloopError

NO_CROWDS: Final = "crowd left out: the format has none"
FREQUENCIES: Final = ((10, "r"), (100, "c"))
"""LVIS: a category is rare in up to 10 images, common in up to 100, else frequent (Gupta et al., CVPR 2019)."""


def write_coco(export: Export) -> None:
    """Write a COCO data set: compressed run lengths, numbers from 1, score and provenance beside each mask."""
    _write_dataset(export, export.out, export.gathered.categories, _annotations(export))


def write_coco_results(export: Export) -> None:
    """Write a COCO results file: a plain list of image, category, mask and score.

    There is no box: pycocotools would take area and box from it instead of the mask.
    """
    with _JsonFile(export.out) as file:
        file.write_list(_results(export))
    if not export.out.stat().st_size > len("[]\n"):
        raise SegloopError("no mask is left for a results file, and pycocotools reads no empty one.")


def write_lvis(export: Export) -> None:
    """Write the LVIS form: no crowds, categories with their counts, images that say what was not searched for."""
    images, instances = Counter[int](), Counter[int]()
    on_image: DiskTable[int, list[int]] = DiskTable()
    annotations = _counted(export, images, instances, on_image)
    # The categories are counted while the annotations are written, so they come last.
    with _JsonFile(export.out) as file:
        file.begin("info", _info(export))
        file.begin("licenses", [])
        file.begin_list("annotations", annotations)
        file.begin_list("images", (_lvis_image(image, on_image) for image, _ in export.gathered.images()))
        file.begin("categories", [_lvis_category(one, images, instances) for one in export.gathered.categories])


def write_coco_folder(export: Export) -> None:
    """Write `images/SPLIT/` and `annotations/instances_SPLIT.json`, as datumaro, CVAT and FiftyOne read them."""
    split = export.wishes.split
    for image, path in export.gathered.images():
        export.place_image(path, f"images/{split}/{image['file_name']}")
    target = export.out / "annotations" / f"instances_{split}.json"
    target.parent.mkdir()
    _write_dataset(export, target, export.gathered.categories, _annotations(export))
    write_category_table(export)


def write_category_table(export: Export) -> None:
    """Write `categories.csv`: id and name of every category."""
    with (export.out / "categories.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("id", "name", "supercategory"))
        table.writerows((one["id"], one["name"], one.get("supercategory", "")) for one in export.gathered.categories)


def _write_dataset(export: Export, path: Path, categories: list[Record], annotations: Iterator[Record]) -> None:
    with _JsonFile(path) as file:
        file.begin("info", _info(export))
        file.begin("licenses", [])
        file.begin("categories", categories)
        file.begin_list("images", (image for image, _ in export.gathered.images()))
        file.begin_list("annotations", annotations)


def _info(export: Export) -> Record:
    # The file may be published: not where on this machine its source lies.
    sources = ["/".join(Path(source).parts[-2:]) for source in export.gathered.sources]
    return {"description": "masks exported by segloop", "version": __version__, "sources": sources}


def _annotations(export: Export) -> Iterator[Record]:
    for _, _, annotations in export.gathered.scenes():
        yield from annotations


def _results(export: Export) -> Iterator[Record]:
    for image, _, annotations in export.gathered.scenes():
        for one in annotations:
            score = one.get("score")
            if one["iscrowd"]:
                export.losses.leave_out(image, one, NO_CROWDS)
                continue
            if score is None:
                export.losses.count("score 1.0 written for a mask without score")
            elif isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                export.losses.leave_out(image, one, "score that is no finite number")
                continue
            yield {key: one[key] for key in ("image_id", "category_id", "segmentation")} | {
                "score": 1.0 if score is None else score
            }


def _counted(
    export: Export, images: Counter[int], instances: Counter[int], on_image: DiskTable[int, list[int]]
) -> Iterator[Record]:
    for image, _, annotations in export.gathered.scenes():
        kept = []
        for one in annotations:
            if one["iscrowd"]:
                export.losses.leave_out(image, one, NO_CROWDS)
            else:
                kept.append({key: value for key, value in one.items() if key != "iscrowd"})
        found = Counter(one["category_id"] for one in kept)
        images.update(found.keys())
        instances.update(found)
        # Collected masks are some of the objects of their category, not all: no detector may be blamed for others.
        on_image[image["id"]] = sorted({one["category_id"] for one in kept if "provenance" in one})
        yield from kept


def _lvis_image(image: Record, on_image: DiskTable[int, list[int]]) -> Record:
    known = {"neg_category_ids": [], "not_exhaustive_category_ids": on_image.get(image["id"]) or []}
    return known | image


def _lvis_category(category: Record, images: Counter[int], instances: Counter[int]) -> Record:
    count = images[category["id"]]
    frequency = next((letter for most, letter in FREQUENCIES if count <= most), "f")
    known = {"synset": category["name"], "synonyms": [category["name"]], "def": ""}
    counts = {"image_count": count, "instance_count": instances[category["id"]], "frequency": frequency}
    return known | category | counts


class _JsonFile:
    """A JSON file that is written key by key and record by record, so that it need not fit in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = 0

    def __enter__(self) -> "_JsonFile":
        self._file: IO[str] = self._path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        if self._keys:
            self._file.write("\n}\n")
        self._file.close()

    def begin(self, key: str, value: Any) -> None:
        """Write a key of the outer object with its value."""
        self._file.write(("{\n" if not self._keys else ",\n") + f"{json.dumps(key)}: {_json(value)}")
        self._keys += 1

    def begin_list(self, key: str, records: Iterable[Record]) -> None:
        """Write a key whose value is a long list."""
        self._file.write(("{\n" if not self._keys else ",\n") + f"{json.dumps(key)}: ")
        self._keys += 1
        self._list(records)

    def write_list(self, records: Iterable[Record]) -> None:
        """Write a list that is the whole file."""
        self._list(records)
        self._file.write("\n")

    def _list(self, records: Iterable[Record]) -> None:
        self._file.write("[")
        for place, record in enumerate(records):
            self._file.write(("," if place else "") + "\n" + _json(record))
        self._file.write("]")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    except ValueError:
        name = value.get("id") if isinstance(value, dict) else ""
        raise SegloopError(
            f"the record {name} holds a number that JSON has not (NaN or infinity). Run `segloop doctor` on the source."
        ) from None
