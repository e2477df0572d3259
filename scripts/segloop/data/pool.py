"""The pool: a list of millions of images, or a sample of it, cut into shards; and its hidden truth in simulations."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
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
from segloop.files import atomic_directory, atomic_file, read_json, sha256_file, write_json
from segloop.randomness import generator

logger = logging.getLogger("segloop")

SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("file_name", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
)
# Images held in memory at a time.
_BLOCK = 1 << 16
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
    output: Path,
    manifest: Path,
    skipped: Path,
    max_skipped: float,
) -> None:
    """Cut the pool, or a sample of it, into shards of consecutive images.

    The source is read twice, first to count and then to write, so that memory does not grow with the pool. Images
    are not opened. An image keeps the id its COCO file gives it, else it is numbered from 1 by its place in the list.

    Parameters
    ----------
    output
        The folder to write: one Parquet file a shard, `0.parquet` and so on (columns of `SCHEMA`).
    manifest
        JSON: number of images, of how many, whether they are a sample, seed, and for each shard its number of images
        and the SHA-256 of its file.

    Raises
    ------
    SegloopError
        If the pool is missing or empty.
    """
    with SkipReport(skipped, max_skipped) as report:
        total = sum(1 for _ in _source(config, data_root, report))
    if total == 0:
        raise SegloopError(
            f"the pool is empty: {_named(config, data_root)} gives no image. Check pool.list and pool.images."
        )
    images: Iterable[PoolImage] = _source(config, data_root, _Silent(skipped, max_skipped))
    count = total
    if config.sample is not None and config.sample < total:
        count = config.sample
        chosen = _sample(total, count, seed)
        images = (image for place, image in enumerate(images) if chosen[place])
    with atomic_directory(output) as folder:
        shards = _write_shards(images, count, [folder / f"{number}.parquet" for number in range(config.shards)])
    write_json(
        manifest,
        {"schema_version": 1, "images": count, "of": total, "sampled": count < total, "seed": seed, "shards": shards},
    )


def shard_labelled_set(*, labelled_set: Path, count: int, output: Path) -> None:
    """Cut the images of a labelled set into shards, so that they can be predicted like the pool's.

    Parameters
    ----------
    labelled_set
        Canonical COCO file.
    count
        Number of shards.
    output
        The folder to write, as `shard_pool` does.
    """
    images = [
        PoolImage(image["id"], image["file_name"], image["width"], image["height"])
        for image in read_json(labelled_set)["images"]
    ]
    with atomic_directory(output) as folder:
        _write_shards(images, len(images), [folder / f"{number}.parquet" for number in range(count)])


class _Silent(SkipReport):
    """For the second reading: the first one has named what is skipped."""

    def skip(self, file: str | Path, record: str | int, reason: str) -> None:
        """Name nothing again."""


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
        written = _write_shard(output, islice(stream, size))
        if written != size:
            raise SegloopError("the pool's list changed while it was read. Run shard_pool again.")
        shards.append({"shard": number, "images": size, "sha256": sha256_file(output)})
    return shards


def _write_shard(output: Path, images: Iterator[PoolImage]) -> int:
    written = 0
    with atomic_file(output) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        while block := list(islice(images, _BLOCK)):
            writer.write_table(pa.Table.from_pylist([vars(image) for image in block], schema=SCHEMA))
            written += len(block)
    return written


def shard_tables(folder: Path) -> list[Path]:
    """Return the Parquet files of all shards, in shard order."""
    return sorted(folder.glob("*.parquet"), key=lambda path: int(path.stem))


def read_shard(path: Path) -> ShardImages:
    """Read the images of one shard.

    Raises
    ------
    SegloopError
        If the file is missing or no shard.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise SegloopError(f"the pool shard {path} cannot be read ({error}). Run shard_pool again.") from None
    if not table.schema.equals(SCHEMA):
        raise SegloopError(f"{path} is no pool shard: it has the columns {table.column_names}. Run shard_pool again.")
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
        return _of_folder(data_root / config.images, report)
    if config.list is None:
        raise SegloopError(f"a pool of format {config.format} needs pool.list: the file that lists its images")
    if config.format == "coco":
        return _of_coco(data_root / config.list, data_root / config.images, report)
    return _of_list(data_root / config.list, data_root / config.images, report)


def _of_folder(folder: Path, report: SkipReport) -> Iterator[PoolImage]:
    if not folder.is_dir():
        raise SegloopError(f"the pool's folder {folder.absolute()} does not exist. Check data_root and pool.images.")
    files = (path for path in _walk(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    for number, path in enumerate(files, start=1):
        try:
            image = PoolImage(number, str(safe_path(folder, str(path.relative_to(folder)))))
        except SegloopError as error:
            report.skip(folder, f"image {number}", str(error))
            continue
        report.use()
        yield image


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    # Sorted folder by folder, so that the order is the same everywhere and memory holds one folder's names at a time.
    # Hidden entries are not the pool's: previews, and the shadow files that some systems write beside each image.
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SegloopError(f"the pool's folder {folder.absolute()} cannot be read ({error}).") from None
    yield from (entry for entry in entries if entry.is_file())
    # A link to a folder above would lead in circles.
    above = (*above, folder.resolve())
    for entry in entries:
        if entry.is_dir() and entry.resolve() not in above:
            yield from _walk(entry, above)


def _of_list(path: Path, folder: Path, report: SkipReport) -> Iterator[PoolImage]:
    for number, name in enumerate(read_places_list(path), start=1):
        try:
            image = PoolImage(number, str(safe_path(folder, name)))
        except SegloopError as error:
            report.skip(path, f"line {number}", str(error))
            continue
        report.use()
        yield image


def _of_coco(path: Path, folder: Path, report: SkipReport) -> Iterator[PoolImage]:
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise SegloopError(f"{path} is no COCO file: it has no list of images. Check pool.list and pool.format.")
    for image in read_images(path, value["images"], folder, report, "listed").values():
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

    Images are matched by their path below the image folder. Where only one of the two sources names folders, the bare
    name decides, if a single image of the pool has it.
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
        matched = _match_images(path, truth["images"], data_root / config.images, shards, report)
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


def _match_images(
    path: Path, images: list[Record], folder: Path, shards: list[Path], report: SkipReport
) -> dict[int, int]:
    """Return pool ids by the truth's image ids; a second truth of one image, or one of another size, is skipped."""
    pool = _PoolNames(folder, shards)
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for image in images:
        number = pool.find(image["file_name"])
        if number is None:
            continue
        width, height = pool.sizes[number]
        if number in taken:
            report.skip(path, f"image {image['id']}", "another image of the file is the same image of the pool")
        elif width and height and (width, height) != (image["width"], image["height"]):
            size = f"{image['width']} x {image['height']}"
            report.skip(path, f"image {image['id']}", f"has size {size}, in the pool it has {width} x {height}")
        else:
            matched[image["id"]] = number
            taken.add(number)
    return matched


class _PoolNames:
    """Finds images of the pool by their file names."""

    def __init__(self, folder: Path, shards: list[Path]) -> None:
        self.folder = folder
        self.by_path: dict[str, int] = {}
        self.by_name: dict[str, str | None] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        for shard in shards:
            pool = read_shard(shard)
            sizes = zip(pool.width.tolist(), pool.height.tolist(), strict=True)
            for number, name, size in zip(pool.image_id.tolist(), pool.file_name, sizes, strict=True):
                self.by_path[name] = number
                self.sizes[number] = size
                short = Path(name).name
                self.by_name[short] = None if short in self.by_name else name

    def find(self, name: str) -> int | None:
        """Return the id of the image with this path, or of the only one with this bare name."""
        if name in self.by_path:
            return self.by_path[name]
        other = self.by_name.get(Path(name).name)
        # Places has a 00000001.jpg in every scene: a bare name decides only where one source names no folder.
        if other is None or self.folder not in (Path(name).parent, Path(other).parent):
            return None
        return self.by_path[other]


def _renumbered(truth: Record, matched: dict[int, int]) -> Record:
    images = [image | {"id": matched[image["id"]]} for image in truth["images"] if image["id"] in matched]
    kept = [one | {"image_id": matched[one["image_id"]]} for one in truth["annotations"] if one["image_id"] in matched]
    return truth | {
        "images": sorted(images, key=lambda image: image["id"]),
        "annotations": [one | {"id": number} for number, one in enumerate(kept, start=1)],
    }
