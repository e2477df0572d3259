"""An iteration as data sets: what was collected so far, and the predictions that are asked about where they are few."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from labelmelite.loop.iteration import Iteration
from labelmelite.loop.pictures import Pictures
from labelmelite.sources.base import Category, Image, ListSource, Object, Source
from segloop.data import masks
from segloop.data.masks import MaskError
from segloop.data.pool import read_shard, shard_tables
from segloop.files import fingerprint, read_json

_FEW: Final = 20_000
"""Predictions up to which an iteration is a data set of its own."""


def sources_of(iteration: Iteration) -> list[Source]:
    """Return the data sets of a run: the collected masks of each finished iteration, and the present predictions."""
    found: list[Source] = []
    for number in range(1, iteration.number + 1):
        path = iteration.run / "results" / f"iter_{number}" / "collected.json"
        if path.exists():
            found.append(_collected(iteration, number, path))
    if len(iteration.world) <= _FEW:
        found.append(_predictions(iteration))
    return found


def _source(iteration: Iteration, name: str, path: Path, images: Sequence[tuple[int, str, int, int]]) -> ListSource:
    """Return a source with its categories and images, but without objects."""
    root, names = _common_root(iteration, [image[1] for image in images])
    source = ListSource(
        name=f"{iteration.run.resolve().name}, {name}",
        kind="loop",
        key=f"loop {path.resolve()}",
        fingerprint=fingerprint(path if path.is_file() else path / "zarr.json"),
        root=str(root),
        category_list=[
            Category(number, word, iteration.definitions.get(number, ""))
            for number, word in iteration.categories.items()
        ],
    )
    for (number, file_name, width, height), inside in zip(images, names, strict=True):
        if inside is None:
            source.skipped.append({"record": f"image {number}", "reason": f"{file_name} lies outside data_root"})
        else:
            source.image_list.append(Image(number, inside, width or None, height or None))
    return source


def _common_root(iteration: Iteration, names: Sequence[str]) -> tuple[Path, list[str | None]]:
    """Return the folder that holds the images, and each name relative to it; None where it lies elsewhere."""
    best: tuple[Path, list[str | None]] | None = None
    for root in iteration.roots:
        inside = [_inside(iteration.run / name, root) for name in names]
        if best is None or inside.count(None) < best[1].count(None):
            best = (root, inside)
    assert best is not None
    return best


def _inside(path: Path, root: Path) -> str | None:
    # Not resolved: a linked folder of images is where the run says it is, and the server checks where it leads.
    absolute = Path(path).absolute()
    return str(absolute.relative_to(root)) if absolute.is_relative_to(root) else None


def _collected(iteration: Iteration, number: int, path: Path) -> Source:
    dataset = read_json(path)
    images = [(int(one["id"]), str(one["file_name"]), one["width"], one["height"]) for one in dataset["images"]]
    source = _source(iteration, f"collected in iteration {number}", path, images)
    source.head = {"info": dict(dataset["info"])}
    known = {image.number for image in source.image_list}
    for one in dataset["annotations"]:
        if one["image_id"] in known:
            try:
                source.object_list.append(_object(one))
            except MaskError as error:
                source.skipped.append({"record": f"annotation {one['id']}", "reason": str(error)})
    return source


def _object(one: dict[str, Any]) -> Object:
    return Object(
        id=str(one["provenance"]["prediction"]),
        image=int(one["image_id"]),
        category=int(one["category_id"]),
        mask=masks.check(one["segmentation"]),
        score=one["score"],
        provenance=one["provenance"],
    )


def _predictions(iteration: Iteration) -> Source:
    world = iteration.world
    used = set(world.image_id.tolist())
    images = [image for image in _pool(iteration) if image[0] in used]
    path = iteration.folder / "index.zarr"
    source = _source(iteration, f"predictions of iteration {iteration.number}", path, images)
    known = {image.number for image in source.image_list}
    rows = [row for row in np.argsort(world.prediction).tolist() if int(world.image_id[row]) in known]
    found = Pictures(iteration.run).many(world.prediction[rows].tolist())
    for row, picture in zip(rows, found, strict=True):
        name = str(world.prediction[row])
        source.object_list.append(
            Object(
                id=name,
                image=int(world.image_id[row]),
                category=int(world.category[row]),
                mask=picture.mask,
                score=round(float(world.score[row]), 4),
                provenance={"iteration": iteration.number, "prediction": name},
            )
        )
    return source


def _pool(iteration: Iteration) -> Iterator[tuple[int, str, int, int]]:
    for path in shard_tables(iteration.run / "resources" / "pool" / "shards"):
        shard = read_shard(path)
        yield from zip(
            shard.image_id.tolist(), shard.file_name, shard.width.tolist(), shard.height.tolist(), strict=True
        )
