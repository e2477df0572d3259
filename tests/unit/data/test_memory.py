"""What reads, writes and judges data sets holds no more memory for five times as many images.

Only memory that Python knows of is counted; SQLite's cache has a limit of its own (`segloop.data.on_disk`).
"""

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from segloop.config import LabelledSetConfig, PoolConfig, TruthConfig
from segloop.data import coco_rows, json_stream, on_disk
from segloop.data.coco import write_labelled_set
from segloop.data.doctor.coco_files import examine_coco
from segloop.data.exports.base import Wishes
from segloop.data.exports.writing import WRITERS, Source, export_set
from segloop.data.formats import open_dataset
from segloop.data.pool import import_truth, shard_labelled_set, shard_pool, shard_tables
from segloop.data.skipped import SkipReport
from segloop.data.statistics import Statistics

FEW, MANY = 300, 1500
SLACK = 150_000
"""Bytes. 1,200 records of images alone would take four times as much."""
ROW = {"category_id": 1, "iscrowd": 0, "area": 16, "bbox": [2, 2, 4, 4]}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Files of a megabyte then take no more of the buffer than files of gigabytes do of the usual one.
    monkeypatch.setattr(json_stream, "_BLOCK", 1 << 14)
    for module in (coco_rows, on_disk):
        monkeypatch.setattr(module, "_BLOCK", 64)


def draw(folder: Path, count: int) -> Path:
    """Write a COCO data set of so many images, with a square on each; return its file."""
    folder.mkdir()
    ring = [[2, 2, 6, 2, 6, 6, 2, 6]]
    images = [{"id": n, "file_name": f"folder/{n:08}.jpg", "width": 10, "height": 10} for n in range(1, count + 1)]
    annotations = [{"id": n, "image_id": n, "segmentation": ring, **ROW} for n in range(1, count + 1)]
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    path = folder / "set.json"
    path.write_text(json.dumps(value))
    return path


def read(path: Path) -> None:
    report = SkipReport(None, 0.0)
    config = LabelledSetConfig(annotations=str(path), format="coco", images=str(path.parent))
    dataset = open_dataset(config, data_root=Path("/"), report=report)
    write_labelled_set(path.with_name("out.json"), dataset)


def counted(path: Path) -> None:
    report = SkipReport(None, 0.0)
    config = LabelledSetConfig(annotations=str(path), format="coco", images=str(path.parent))
    statistics = Statistics(holes=False)
    statistics.add_all(open_dataset(config, data_root=Path("/"), report=report).labelled())
    assert statistics.record([{"id": 1, "name": "square"}])["sizes"]["small"] in (FEW, MANY)


def judged(path: Path) -> None:
    found = examine_coco(path, "coco", images=None, check="none", repaired=path.with_name("repaired.json"))
    assert found.usable_annotations in (FEW, MANY)


def cut(path: Path) -> None:
    shard_pool(
        config=PoolConfig(format="coco", list=path.name, images="pictures", shards=4),
        data_root=path.parent,
        seed=0,
        output=path.parent / "shards",
        manifest=path.parent / "manifest.json",
        skipped=path.parent / "skipped.json",
        max_skipped=0.0,
    )
    shard_labelled_set(labelled_set=path, count=4, output=path.parent / "seed_shards")


def truth(path: Path) -> None:
    cut(path)
    import_truth(
        config=PoolConfig(format="coco", list=path.name, images="pictures", truth=TruthConfig(annotations=path.name)),
        data_root=path.parent,
        shards=shard_tables(path.parent / "shards"),
        seed_set=path,
        output=path.with_name("truth.json"),
        skipped=path.with_name("skipped.json"),
        max_skipped=0.0,
    )


def exported(name: str) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        config = LabelledSetConfig(annotations=str(path), format="coco", images=str(path.parent))
        export_set(Source(dataset=config), name, path.with_name("export"), Wishes(images="none"), force=True)

    return work


WORK: dict[str, Callable[[Path], None]] = {
    "read and written": read,
    "counted": counted,
    "judged": judged,
    "cut into shards": cut,
    "truth of the pool": truth,
} | {f"exported as {name}": exported(name) for name in WRITERS if name != "cityscapes"}


def peak(work: Callable[[Path], None], path: Path) -> int:
    """Return the most bytes that Python held while something ran, of two runs the fewer.

    The interpreter's own table of interned strings grows by a leap now and then, in one of them.
    """
    return min(traced(work, path), traced(work, path))


def traced(work: Callable[[Path], None], path: Path) -> int:
    """Return the most bytes that Python held while something ran once."""
    tracemalloc.start()
    try:
        work(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", WORK)
def test_memory_does_not_grow(tmp_path: Path, name: str) -> None:
    WORK[name](draw(tmp_path / "warm", FEW))
    few, many = peak(WORK[name], draw(tmp_path / "few", FEW)), peak(WORK[name], draw(tmp_path / "many", MANY))
    assert many < few + SLACK


def test_open_images_are_read_from_a_table_on_disk(tmp_path: Path) -> None:
    def prepare(count: int) -> Path:
        folder = tmp_path / str(count)
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        Image.new("L", (10, 10)).save(folder / "images" / "0.jpg")
        with (folder / "masks.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("MaskPath", "ImageID", "LabelName"))
            table.writerows((f"{n}_some_mask.png", f"{n:016x}", "/m/01") for n in range(count))
        (folder / "names.csv").write_text("/m/01,Thing\n")
        return folder

    def work(folder: Path) -> None:
        config = LabelledSetConfig(
            format="open_images", annotations="masks.csv", images="images", mask_folder="masks", categories="names.csv"
        )
        open_dataset(config, data_root=folder, report=SkipReport(None, 1.0))

    few, many = prepare(FEW), prepare(20 * FEW)
    work(few)
    assert peak(work, many) < peak(work, few) + SLACK


def test_a_folder_of_annotation_files_is_listed_on_disk(tmp_path: Path) -> None:
    def prepare(folders: int) -> Path:
        root = tmp_path / str(folders)
        for folder in range(folders):
            (root / f"part_{folder:04}").mkdir(parents=True)
            for number in range(20):
                (root / f"part_{folder:04}" / f"sa_{number}.json").touch()
        return root

    def work(root: Path) -> None:
        config = LabelledSetConfig(format="sa1b", annotations=str(root), images=str(root))
        open_dataset(config, data_root=Path("/"), report=SkipReport(None, 1.0))

    few, many = prepare(5), prepare(150)
    work(few)
    assert peak(work, many) < peak(work, few) + SLACK
