"""Masks whose truth is known: gold questions, and the examples that people are shown.

`gold.json` in the folder of people's answers says of each by its mask key whether it is good. Where a run asks for gold
and has no such file, it is made once: from predictions on the validation set, each judged by its best match among all
objects of its category. Those near the threshold are left out; the other half of them serves as examples.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from labelmelite.loop import showing
from labelmelite.loop.dealing import Gold
from labelmelite.loop.iteration import Iteration
from labelmelite.loop.pictures import Picture
from segloop.annotation.people import Record, read_gold
from segloop.data import masks
from segloop.errors import SegloopError
from segloop.files import read_json, write_json
from segloop.ids import mask_key
from segloop.randomness import seed_of
from segloop.store.index import read_index_columns

MASKS: Final = "gold_masks.json"
"""Where the masks stand that are predictions on the validation set, and so in no index."""
_MARGIN: Final = 0.3
"""Bad ones are this far below the threshold, as in the thesis: 0.5 for 0.8."""
_EXAMPLES: Final = 10
_PER_CATEGORY: Final = 200


class GoldMasks:
    """The gold of an iteration.

    Attributes
    ----------
    truth
        Whether a mask is good, by its key.
    by_category
        Those that can be shown.
    pictures
        Of masks that are no predictions on the pool, by their key.
    """

    def __init__(self, iteration: Iteration) -> None:
        self._iteration = iteration
        self._candidates = list(_judged_on_validation(iteration))
        if iteration.config.annotation.gold is not None and not (iteration.answers_root / "gold.json").exists():
            self._make()
        self.truth = iteration.gold()
        self.pictures: dict[bytes, Picture] = {}
        self.by_category: dict[int, list[Gold]] = defaultdict(list)
        self._find()
        self._shown: dict[str, Picture] = {}
        self._examples = self._choose_examples()

    def mark(self, key: bytes, reply: str) -> None:
        """Put a mask into gold.json, or take it out (`none`)."""
        path = self._iteration.answers_root / "gold.json"
        known = {
            name.hex(): "yes" if good else "no" for name, good in read_gold(path if path.exists() else None).items()
        }
        known.pop(key.hex(), None)
        write_json(path, known | ({key.hex(): reply} if reply != "none" else {}), sealed=False)
        self.truth = self._iteration.gold()
        self.by_category.clear()
        self._find()

    def judged(self, answers: list[Record]) -> list[bool]:
        """Return whether each answer to a gold question was right, in their order; anything but yes means no."""
        return [
            (record["reply"] == "yes") == self.truth[record["mask_key"]]
            for record in answers
            if record["mask_key"] in self.truth
        ]

    def examples(self, category: int) -> dict[str, list[dict[str, Any]]]:
        """Return items that show what to answer with yes and with no."""
        name = self._iteration.categories.get(category, str(category))
        return {
            word: [showing.item_of(item, self._shown[item], name) for item in self._examples.get((category, good), [])]
            for word, good in (("yes", True), ("no", False))
        }

    def example(self, item: str) -> Picture | None:
        """Return what an example shows, None if there is none of that name."""
        return self._shown.get(item)

    def _choose_examples(self) -> dict[tuple[int, bool], list[str]]:
        found: dict[tuple[int, bool], list[str]] = defaultdict(list)
        for key, category, good, picture in self._candidates:
            if not _is_gold(key) and key not in self.truth and len(found[category, good]) < _EXAMPLES:
                name = f"e{key.hex()[:16]}"
                self._shown[name] = picture
                found[category, good].append(name)
        return found

    def _make(self) -> None:
        chosen: dict[tuple[int, bool], list[tuple[bytes, Picture]]] = defaultdict(list)
        for key, category, good, picture in self._candidates:
            if _is_gold(key) and len(chosen[category, good]) < _PER_CATEGORY:
                chosen[category, good].append((key, picture))
        if not chosen:
            return
        root = self._iteration.answers_root
        stored = {
            key.hex(): {"category_id": category, "file_name": picture.file_name, **masks.to_json(picture.mask)}
            for (category, _), some in chosen.items()
            for key, picture in some
        }
        # The masks first: gold that cannot be shown would measure nobody.
        write_json(root / MASKS, stored, sealed=False)
        write_json(
            root / "gold.json",
            {key.hex(): "yes" if good else "no" for (_, good), some in chosen.items() for key, _ in some},
            sealed=False,
        )

    def _find(self) -> None:
        missing = set(self.truth)
        for number in range(self._iteration.number, 0, -1):
            if missing:
                path = self._iteration.run / "results" / f"iter_{number}" / "index.zarr"
                missing -= self._find_in(path, missing)
        path = self._iteration.answers_root / MASKS
        for name, one in (read_json(path) if missing and path.exists() else {}).items():
            key = bytes.fromhex(name)
            if key in missing:
                rle = masks.check({"size": one["size"], "counts": one["counts"]})
                self.pictures[key] = _picture(one["file_name"], rle)
                self._add(key, 0, int(one["category_id"]))

    def _find_in(self, index: Path, wanted: set[bytes]) -> set[bytes]:
        if not index.exists():
            return set()
        prediction, category, keys = read_index_columns(index, "prediction", "category", "mask_key")
        heads = np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]
        some = np.array([np.frombuffer(key, np.uint64, 1)[0] for key in wanted], np.uint64)
        found = set()
        for row in np.flatnonzero(np.isin(heads, some)).tolist():
            key = keys[row].tobytes()
            if key in wanted and key not in found:
                found.add(key)
                self._add(key, int(prediction[row]), int(category[row]))
        return found

    def _add(self, key: bytes, prediction: int, category: int) -> None:
        self.by_category[category].append(Gold(key, prediction, self.truth[key]))


def _is_gold(key: bytes) -> bool:
    """Return whether a validation mask is gold; the others are examples, so that no gold is shown with its answer."""
    return seed_of("gold or example", key.hex()) % 2 == 0


def _judged_on_validation(iteration: Iteration) -> Iterator[tuple[bytes, int, bool, Picture]]:
    """Yield predictions of the model in use on the validation set whose truth is plain, best first."""
    path = iteration.run / "results" / f"iter_{iteration.number - 1}" / "validation_results.json"
    truth_path = iteration.run / "resources" / "seed" / "val.json"
    if not path.exists() or not truth_path.exists():
        return
    dataset = read_json(truth_path)
    names = {int(image["id"]): str(image["file_name"]) for image in dataset["images"]}
    objects: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for annotation in dataset["annotations"]:
        objects[int(annotation["image_id"]), int(annotation["category_id"])].append(annotation)
    t_iou = iteration.config.annotation.t_iou
    low = max(t_iou - _MARGIN, t_iou / 2)
    for one in sorted(read_json(path), key=lambda found: (-found["score"], found["image_id"])):
        image, category = int(one["image_id"]), int(one["category_id"])
        if one["score"] <= iteration.config.index.score or image not in names:
            continue
        rle = masks.from_json(one["segmentation"])
        others = objects.get((image, category), [])
        if any(other["iscrowd"] for other in others):
            continue
        try:
            known = [masks.from_json(other["segmentation"]) for other in others]
            best = float(masks.iou([rle], known).max()) if known else 0.0
        except SegloopError:
            continue
        if (best > t_iou or best < low) and masks.area([rle])[0]:
            height, width = rle["size"]
            # No image of the pool has a number below 0, so that no mask of the pool has this key.
            key = mask_key(-image, category, (height, width), rle["counts"])
            yield key, category, best > t_iou, _picture(names[image], rle)


def _picture(file_name: str, rle: masks.Rle) -> Picture:
    height, width = rle["size"]
    return Picture(file_name, (width, height), masks.boxes([rle])[0].tolist(), rle)
