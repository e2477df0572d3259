"""The pool: a list of millions of images, or a sample of it, cut into shards; and its hidden truth in simulations."""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from segloop import integrity
from segloop.config import LabelledSetConfig, PoolConfig, TruthConfig
from segloop.data.coco import write_labelled_set
from segloop.data.coco_tables import ImageTable, safe_path
from segloop.data.formats import open_dataset
from segloop.data.images import IMAGE_SUFFIXES
from segloop.data.json_stream import JsonFile
from segloop.data.labelled import LabelledSet, Record
from segloop.data.on_disk import DiskTable, TemporaryDatabase
from segloop.data.places import read_places_list
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import atomic_directory, sha256_file, write_json
from segloop.parquet import check_version, marked
from segloop.randomness import generator

logger = logging.getLogger("segloop")

SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("file_name", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
)
# Images held in memory at a time.
_BLOCK = 1 << 16


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


class PoolImage(NamedTuple):
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
        found = tqdm(_source(config, data_root, report), desc="counting the pool", unit="image", disable=None)
        total = sum(1 for _ in found)
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
    total = sum(1 for _ in _listed(labelled_set, "images"))
    images = (
        PoolImage(image["id"], image["file_name"], image["width"], image["height"])
        for image in _listed(labelled_set, "images")
    )
    with atomic_directory(output) as folder:
        _write_shards(images, total, [folder / f"{number}.parquet" for number in range(count)])


def _listed(path: Path, key: str) -> Iterator[Any]:
    """Yield the elements of one list of a COCO file."""
    with JsonFile(path) as file:
        yield from (member.value for member in file.members() if member.listed and member.key == key)
        if key not in file.lists:
            raise SegloopError(f"{path} is no COCO file: it has no list of {key}. Check its path and its format.")


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
    # Written under its own name: the folder around it gets its name when all are there. A temporary name for each would
    # mean to look through all of the folder for each, which takes hours for a hundred thousand shards.
    written = 0
    with output.open("wb") as file:
        with pq.ParquetWriter(file, marked(SCHEMA), compression="zstd") as writer:
            while block := list(islice(images, _BLOCK)):
                columns = zip(*block, strict=True)
                arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
                writer.write_table(pa.table(arrays, schema=SCHEMA))
                written += len(block)
        file.flush()
        os.fsync(file.fileno())
    integrity.seal(output)
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
    integrity.check(path)
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise SegloopError(f"the pool shard {path} cannot be read ({error}). Run shard_pool again.") from None
    check_version(path, table.schema)
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
    if config.format == "truth":
        return _of_truth(config, data_root, report)
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
    root = str(folder / "a")[:-1]
    for number, name in enumerate(read_places_list(path), start=1):
        # Of millions of names nearly all are plain: only the others are taken apart.
        if _is_plain(name):
            report.used += 1
            yield PoolImage(number, root + name)
            continue
        try:
            image = PoolImage(number, str(safe_path(folder, name)))
        except SegloopError as error:
            report.skip(path, f"line {number}", str(error))
            continue
        report.use()
        yield image


def truth_set(config: PoolConfig) -> LabelledSetConfig:
    """Return the pool's truth as a labelled set."""
    truth = config.truth or TruthConfig()
    return LabelledSetConfig.model_validate(truth.model_dump() | {"images": truth.images or config.images})


def _is_plain(name: str) -> bool:
    """Tell whether a name needs no second look: no part leads elsewhere or nowhere, no character is unusual."""
    odd = name[0] in "/." or name[-1] == "/" or "/." in name or "//" in name or "\0" in name
    return name.isascii() and not odd


def _of_truth(config: PoolConfig, data_root: Path, report: SkipReport) -> Iterator[PoolImage]:
    for image in open_dataset(truth_set(config), data_root=data_root, report=report).images():
        report.use()
        yield PoolImage(image["id"], image["file_name"], image["width"], image["height"])


def _of_coco(path: Path, folder: Path, report: SkipReport) -> Iterator[PoolImage]:
    table = ImageTable(path, folder, report, "listed")
    for value in _listed(path, "images"):
        table.take(value)
    for image in table.usable.values():
        report.use()
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
    truth = truth_set(config)
    path = data_root / truth.annotations
    report = SkipReport(skipped, max_skipped)
    dataset = open_dataset(truth, data_root=data_root, report=report)
    matched = _OfPool(dataset, _PoolNames(data_root / truth.images, shards))

    def check(images: int, annotations: int) -> None:
        # Some formats name their categories only where they occur: all are known once all was read.
        _check_categories(path, dataset.categories, seed_set)
        report.finish()
        if not images:
            raise SegloopError(
                f"{path} has no image of the pool. Its file names must be those below {data_root / config.images}."
            )
        logger.info("truth of %d images lies in the pool, %d others do not", images, matched.outside)

    write_labelled_set(output, matched, check)


def _check_categories(path: Path, found: list[Record], seed_set: Path) -> None:
    known = {category["id"]: category["name"] for category in _listed(seed_set, "categories")}
    for category in found:
        name = known.get(category["id"])
        if name != category["name"]:
            expected = f"calls {name!r}" if name is not None else "does not have"
            raise SegloopError(
                f"{path} calls category {category['id']} {category['name']!r}, which the seed set {expected}. "
                "Ids and names of both must agree."
            )


class _PoolNames:
    """Finds images of the pool by their file names."""

    def __init__(self, folder: Path, shards: list[Path]) -> None:
        self.folder = folder
        base = TemporaryDatabase()
        self._by_path: DiskTable[str, PoolImage] = DiskTable(base)
        self._by_name: DiskTable[str, str | None] = DiskTable(base)
        for shard in tqdm(shards, desc="names of the pool", unit="shard", disable=None):
            pool = read_shard(shard)
            columns = (pool.image_id.tolist(), pool.file_name, pool.width.tolist(), pool.height.tolist())
            for image in map(PoolImage._make, zip(*columns, strict=True)):
                self._by_path[image.file_name] = image
                short = Path(image.file_name).name
                self._by_name[short] = None if short in self._by_name else image.file_name

    def find(self, name: str) -> PoolImage | None:
        """Return the image with this path, or the only one with this bare name."""
        found = self._by_path.get(name)
        if found is not None:
            return PoolImage._make(found)
        other = self._by_name.get(Path(name).name)
        # Places has a 00000001.jpg in every scene: a bare name decides only where one source names no folder.
        if other is None or self.folder not in (Path(name).parent, Path(other).parent):
            return None
        return PoolImage._make(self._by_path[other])


class _OfPool(LabelledSet):
    """The images of a labelled set that lie in the pool, under the pool's ids and in their order.

    A second truth of one image, or one of another size, is skipped.
    """

    def __init__(self, dataset: LabelledSet, pool: _PoolNames) -> None:
        self._dataset = dataset
        self._pool = pool
        self.outside = 0
        self.source, self.report = dataset.source, dataset.report

    @property
    def categories(self) -> list[Record]:
        return self._dataset.categories

    def labelled(self, images: Iterable[Record] | None = None) -> Iterator[tuple[Record, list[Record]]]:
        base = TemporaryDatabase()
        found: DiskTable[int, Record] = DiskTable(base)
        numbers: DiskTable[int, int] = DiskTable(base)
        for image in self._dataset.images() if images is None else images:
            number = self._find(image, found)
            if number is not None:
                found[number], numbers[image["id"]] = image, number
        for image, annotations in self._dataset.labelled(image for _, image in found.sorted_items()):
            number = numbers[image["id"]]
            yield image | {"id": number}, [one | {"image_id": number} for one in annotations]

    def _find(self, image: Record, taken: DiskTable[int, Record]) -> int | None:
        own = self._pool.find(image["file_name"])
        if own is None:
            self.outside += 1
            return None
        if own.image_id in taken:
            reason = "another image of the file is the same image of the pool"
        elif own.width and own.height and (own.width, own.height) != (image["width"], image["height"]):
            size = f"{image['width']} x {image['height']}"
            reason = f"has size {size}, in the pool it has {own.width} x {own.height}"
        else:
            return own.image_id
        self.report.skip(self.source, f"image {image['id']}", reason)
        return None
