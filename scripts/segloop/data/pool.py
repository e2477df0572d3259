"""The pool: a list of millions of images, or a sample of it, cut into shards; and its hidden truth in simulations."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from segloop.config import PoolConfig, TruthConfig
from segloop.data.coco import Record, read_coco, read_images, safe_path, write_canonical
from segloop.data.places import read_places_list
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_file, read_json, sha256_file, write_json
from segloop.randomness import generator

logger = logging.getLogger("segloop")

SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("file_name", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class ShardImages:
    """The images of one shard, in pool order.

    Attributes
    ----------
    image_id
        int64 of shape (n,).
    file_name
        n paths that open from the run directory.
    width, height
        int32 of shape (n,), in pixels; 0 where the source does not say.
    """

    image_id: npt.NDArray[np.int64]
    file_name: list[str]
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.file_name)


@dataclass(frozen=True)
class PoolImage:
    """One image of the pool."""

    image_id: int
    file_name: str
    width: int = 0
    height: int = 0


def shard_pool(
    *,
    config: PoolConfig,
    data_root: Path,
    seed: int,
    outputs: list[Path],
    manifest: Path,
    skipped: Path,
    max_skipped: float,
) -> None:
    """Cut the pool, or a sample of it, into shards of consecutive images.

    The source is read twice, first to count and then to write, so that memory does not grow with the pool. Images
    are not opened. An image keeps the id its COCO file gives it, else it is numbered from 1 by its place in the list.

    Parameters
    ----------
    outputs
        One Parquet file a shard (columns of `SCHEMA`).
    manifest
        JSON: images, sample, seed, and for each shard its number of images and the SHA-256 of its file.

    Raises
    ------
    SegloopError
        If the pool is missing or empty.
    """
    with SkipReport(skipped, max_skipped) as report:
        total = sum(1 for _ in _source(config, data_root, report))
        report.use(total)
    if total == 0:
        raise SegloopError(
            f"the pool is empty: {_named(config, data_root)} gives no image. Check pool.list and pool.images."
        )
    silent = SkipReport(skipped, 1.0)
    images: Iterable[PoolImage] = _source(config, data_root, silent)
    count = total
    if config.sample is not None and config.sample < total:
        count = config.sample
        chosen = _sample(total, count, seed)
        images = (image for place, image in enumerate(images) if chosen[place])
    shards = _write_shards(images, count, outputs)
    write_json(
        manifest,
        {"schema_version": 1, "images": count, "of": total, "seed": seed, "shards": shards},
    )


def _sample(total: int, count: int, seed: int) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(total, bool)
    chosen[generator("pool sample", seed).choice(total, size=count, replace=False)] = True
    return chosen


def _write_shards(images: Iterable[PoolImage], count: int, outputs: list[Path]) -> list[dict[str, Any]]:
    bounds = [count * number // len(outputs) for number in range(len(outputs) + 1)]
    stream = iter(tqdm(images, total=count, desc="pool", unit="image", disable=None))
    shards = []
    for number, output in enumerate(outputs):
        size = bounds[number + 1] - bounds[number]
        _write_shard(output, [next(stream) for _ in range(size)])
        shards.append({"shard": number, "images": size, "sha256": sha256_file(output)})
    return shards


def _write_shard(output: Path, images: list[PoolImage]) -> None:
    columns = [
        pa.array([image.image_id for image in images], pa.int64()),
        pa.array([image.file_name for image in images], pa.string()),
        pa.array([image.width for image in images], pa.int32()),
        pa.array([image.height for image in images], pa.int32()),
    ]
    with atomic_file(output) as temporary:
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary, compression="zstd")


def read_shard(path: Path) -> ShardImages:
    """Read the images of one shard.

    Raises
    ------
    SegloopError
        If the file is missing or no shard.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise SegloopError(f"the pool shard {path} cannot be read ({error}). Run shard_pool again.") from None
    return ShardImages(
        image_id=table["image_id"].to_numpy(),
        file_name=table["file_name"].to_pylist(),
        width=table["width"].to_numpy(),
        height=table["height"].to_numpy(),
    )


def _named(config: PoolConfig, data_root: Path) -> str:
    return str((data_root / (config.list or config.images)).absolute())


def _source(config: PoolConfig, data_root: Path, report: SkipReport) -> Iterator[PoolImage]:
    if config.format == "folder":
        return _of_folder(data_root / config.images)
    if config.list is None:
        raise SegloopError(f"a pool of format {config.format} needs pool.list: the file that lists its images")
    if config.format == "coco":
        return _of_coco(data_root / config.list, data_root / config.images, report)
    return _of_list(data_root / config.list, data_root / config.images, report)


def _of_folder(folder: Path) -> Iterator[PoolImage]:
    if not folder.is_dir():
        raise SegloopError(f"the pool's folder {folder.absolute()} does not exist. Check data_root and pool.images.")
    files = (path for path in _walk(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    for number, path in enumerate(files, start=1):
        yield PoolImage(number, str(path))


def _walk(folder: Path) -> Iterator[Path]:
    # Sorted folder by folder, so that the order is the same everywhere and memory holds one folder's names at a time.
    entries = sorted(folder.iterdir())
    yield from (entry for entry in entries if entry.is_file())
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry)


def _of_list(path: Path, folder: Path, report: SkipReport) -> Iterator[PoolImage]:
    for number, name in enumerate(read_places_list(path), start=1):
        try:
            yield PoolImage(number, str(safe_path(folder, name)))
        except SegloopError as error:
            report.skip(path, f"line {number}", str(error))


def _of_coco(path: Path, folder: Path, report: SkipReport) -> Iterator[PoolImage]:
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise SegloopError(f"{path} is no COCO file: it has no list of images. Check pool.list and pool.format.")
    for image in read_images(path, value["images"], folder, report).values():
        yield PoolImage(image["id"], image["file_name"], image["width"], image["height"])


def import_truth(
    *,
    config: PoolConfig,
    data_root: Path,
    shards: list[Path],
    seed_set: Path,
    output: Path,
    skipped: Path,
    max_skipped: float,
) -> None:
    """Read the hidden truth of the pool and give its images the ids of the pool.

    Images are matched by their path below the image folder, else by their bare name where only one image has it.
    Truth of images outside the pool (or outside its sample) is left out and counted in the log.

    Parameters
    ----------
    seed_set
        The canonical seed set: its categories must be the truth's, by id and by name.

    Raises
    ------
    SegloopError
        If the categories differ, or no image of the truth is in the pool.
    """
    truth_config = config.truth or TruthConfig()
    path = data_root / truth_config.annotations
    with SkipReport(skipped, max_skipped) as report:
        truth = read_coco(path, data_root / config.images, report)
    _check_categories(path, truth["categories"], seed_set)
    matched = _match_images(truth["images"], shards)
    if not matched:
        raise SegloopError(
            f"{path} has no image of the pool. Its file names must be those below {data_root / config.images}."
        )
    logger.info("truth of %d of %d images lies in the pool", len(matched), len(truth["images"]))
    write_canonical(output, _renumbered(truth, matched))


def _check_categories(path: Path, found: list[Record], seed_set: Path) -> None:
    known = {category["id"]: category["name"] for category in read_json(seed_set)["categories"]}
    for category in found:
        name = known.get(category["id"])
        if name != category["name"]:
            expected = f"calls {name!r}" if name is not None else "does not have"
            raise SegloopError(
                f"{path} calls category {category['id']} {category['name']!r}, which the seed set {expected}. "
                "Ids and names of both must agree."
            )


def _match_images(images: list[Record], shards: list[Path]) -> dict[int, int]:
    """Return pool ids by the truth's image ids."""
    by_path: dict[str, int] = {}
    by_name: dict[str, int | None] = {}
    for shard in shards:
        pool = read_shard(shard)
        for number, name in zip(pool.image_id.tolist(), pool.file_name, strict=True):
            by_path[name] = number
            short = Path(name).name
            by_name[short] = None if short in by_name else number
    matched = {}
    for image in images:
        number = by_path.get(image["file_name"], by_name.get(Path(image["file_name"]).name))
        if number is not None:
            matched[image["id"]] = number
    return matched


def _renumbered(truth: Record, matched: dict[int, int]) -> Record:
    images = [image | {"id": matched[image["id"]]} for image in truth["images"] if image["id"] in matched]
    kept = [one | {"image_id": matched[one["image_id"]]} for one in truth["annotations"] if one["image_id"] in matched]
    return truth | {
        "images": sorted(images, key=lambda image: image["id"]),
        "annotations": [one | {"id": number} for number, one in enumerate(kept, start=1)],
    }
