"""Input made to crash, to hang, to escape or to fill memory; each reader answers with its own error or a named skip."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from segloop.config import PoolConfig
from segloop.data import masks, pool
from segloop.data.categories import read_category_table
from segloop.data.coco import read_coco, write_canonical
from segloop.data.images import MAX_PIXELS, ImageError, image_size, open_image
from segloop.data.masks import MaskError
from segloop.data.places import read_places_list
from segloop.data.places_challenge import read_places_challenge
from segloop.data.pool import read_shard, shard_pool, shard_tables
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import read_json

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "formats"
HALF = "\ud800"


def sample(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the sample data beside the project has no {name}")
    return path


# --- masks ------------------------------------------------------------------------------------------------------------

numbers = st.integers(-(1 << 40), 1 << 40) | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
segmentations = st.fixed_dictionaries(
    {"size": st.lists(st.integers(-1, 9) | numbers, max_size=3) | numbers},
    optional={
        "counts": st.lists(st.integers(0, 30) | numbers, max_size=8) | st.text() | st.binary(max_size=9) | numbers
    },
)


@settings(max_examples=300)
@given(segmentations | numbers | st.lists(numbers))
def test_what_the_check_refuses_never_reaches_pycocotools(segmentation: Any) -> None:
    given_away: list[Any] = []

    class Gate:
        def frPyObjects(self, objects: Any, height: int, width: int) -> Any:
            given_away.append(objects)
            return coco_mask.frPyObjects(objects, height, width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "coco_mask", Gate())
        try:
            rle = masks.check(segmentation)
        except MaskError:
            assert given_away == []
            return
    (objects,) = given_away
    assert sum(objects["counts"]) == objects["size"][0] * objects["size"][1]
    assert min(objects["counts"]) >= 0
    assert masks.decode(rle).shape == tuple(rle["size"])


@given(st.data())
def test_a_damaged_mask_is_refused_or_still_adds_up(data: st.DataObject) -> None:
    bitmap = np.random.default_rng(data.draw(st.integers(0, 99))).random((9, 11)) < 0.4
    counts = bytearray(masks.encode(bitmap)["counts"])
    for place in data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1, max_size=3)):
        counts[place] = data.draw(st.integers(0, 255))
    try:
        rle = masks.check({"size": [9, 11], "counts": bytes(counts)}, (9, 11))
    except MaskError:
        return
    decoded = masks.decode(rle)
    assert decoded.shape == (9, 11)
    assert masks.area([rle])[0] == decoded.sum()


coordinates = st.floats(-150, 150, width=32) | st.integers(-150, 150) | st.sampled_from([1e9, float("nan"), 10**400])


@settings(max_examples=200)
@given(st.lists(st.lists(coordinates, max_size=10), max_size=3))
def test_any_polygon_gives_a_mask_of_the_image_or_a_reason(parts: list[list[float]]) -> None:
    try:
        rle = masks.from_polygons(parts, 7, 9)
    except MaskError:
        return
    assert masks.check(masks.to_json(rle), (7, 9)) == rle
    assert masks.decode(rle).shape == (7, 9)


def test_a_polygon_that_would_fill_memory_is_refused() -> None:
    # Each edge is near enough; together they would make the rasteriser hold some ten gigabytes.
    zigzag = [0, 0, 20_000, 20_000] * 3000
    with pytest.raises(MaskError, match="pixels long"):
        masks.from_polygons([zigzag], 2000, 2000)
    with pytest.raises(MaskError, match="more than"):
        masks.from_polygons([[0, 0, 1, 0, 1, 1]], 1 << 20, 1 << 20)


def test_a_long_outline_of_a_large_image_passes() -> None:
    ticks = np.arange(0, 2000)
    comb = np.stack([ticks, np.where(ticks % 2, 1999, 0)], axis=1).ravel().tolist()
    assert masks.area([masks.from_polygons([comb], 2000, 2000)])[0] > 0


def test_masks_of_different_sizes_have_no_union() -> None:
    with pytest.raises(MaskError, match="different sizes"):
        masks.union([masks.encode(np.ones((2, 3), bool)), masks.encode(np.ones((3, 2), bool))])


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_pixels_whatever_the_rotation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.new("RGB", (12, 6)).save(path, exif=exif)
    pixels = open_image(path)
    assert image_size(path) == (pixels.shape[1], pixels.shape[0])
    assert pixels.shape == ((12, 6, 3) if orientation > 4 else (6, 12, 3))


@pytest.mark.parametrize("tail", [b"garbage12345", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\x12\x01"])
def test_damaged_exif_data_does_not_cost_the_image(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6)).save(path, exif=b"Exif\0\0" + tail)
    assert open_image(path).shape == (6, 8, 3)
    assert image_size(path) == (8, 6)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_pixels_can_be_written_to(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new(mode, (3, 2)).save(path)
    pixels = open_image(path)
    pixels[0, 0] = 7
    assert pixels[0, 0].tolist() == [7, 7, 7]


def test_a_small_file_of_very_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, MAX_PIXELS // 20_000 + 1)).save(path)
    assert path.stat().st_size < 1 << 18
    for read in (open_image, image_size):
        with pytest.raises(ImageError, match=r"bomb\.png"):
            read(path)


# --- COCO -------------------------------------------------------------------------------------------------------------


def coco(tmp_path: Path, **keys: Any) -> Path:
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 3}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [3, 4], "counts": [0, 12]}}
        ],
        "categories": [{"id": 1, "name": "one"}],
    }
    path = tmp_path / "in.json"
    path.write_text(json.dumps(value | keys, default=lambda counts: counts.decode("latin-1")))
    return path


anything = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
records = st.fixed_dictionaries(
    {},
    optional={
        "id": anything,
        "image_id": st.sampled_from([1, "1", 1.0]) | anything,
        "category_id": st.just(1) | anything,
        "segmentation": segmentations | anything,
        "iscrowd": anything,
        "file_name": anything,
        "coco_url": anything,
        "width": st.integers(1, 9) | anything,
        "height": st.integers(1, 9) | anything,
    },
)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    logger = logging.getLogger("segloop")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield tmp_path_factory.mktemp("quiet")
    logger.setLevel(before)


@settings(max_examples=100, deadline=None)
@given(images=st.lists(records | anything, max_size=4), annotations=st.lists(records | anything, max_size=4))
def test_no_record_makes_a_traceback(quiet: Path, images: list[Any], annotations: list[Any]) -> None:
    good = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 3}
    with SkipReport(quiet / "skipped.json", 1.0) as report:
        found = read_coco(coco(quiet, images=[good, *images], annotations=annotations), quiet, report)
        write_canonical(quiet / "out.json", found)
    assert report.used + len(report.skipped) == 1 + len(images) + len(annotations)
    assert len(read_json(quiet / "skipped.json")["skipped"]) == len(report.skipped)
    sizes = {image["id"]: (image["height"], image["width"]) for image in found["images"]}
    for number, one in enumerate(found["annotations"], start=1):
        assert one["id"] == number
        assert (
            masks.check(one["segmentation"], sizes[one["image_id"]])["counts"].decode() == one["segmentation"]["counts"]
        )


@pytest.mark.parametrize(("width", "height"), [(1 << 40, 3), (1 << 31, 1), (20_000, 20_000)])
def test_an_image_of_absurd_size_is_skipped(tmp_path: Path, width: int, height: int) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": width, "height": height}
    polygon = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, width, 0, width, height]]}
    report = SkipReport(tmp_path / "skipped.json", 1.0)
    found = read_coco(coco(tmp_path, images=[image], annotations=[polygon]), tmp_path, report)
    assert found["images"] == found["annotations"] == []
    assert "pixels, more than" in report.skipped[0]["reason"]


def test_a_category_must_fit_the_stores(tmp_path: Path) -> None:
    path = coco(tmp_path, categories=[{"id": 1 << 31, "name": "one"}])
    with pytest.raises(SegloopError, match="32 bits"):
        read_coco(path, tmp_path, SkipReport(tmp_path / "skipped.json", 1.0))


def test_half_a_character_in_a_name_is_named(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": f"a{HALF}.jpg", "width": 4, "height": 3}
    with SkipReport(tmp_path / "skipped.json", 1.0) as report:
        found = read_coco(coco(tmp_path, images=[image]), tmp_path, report)
    assert found["images"] == []
    assert "not Unicode" in read_json(tmp_path / "skipped.json")["skipped"][0]["reason"]
    with pytest.raises(SegloopError, match="needs a whole number as id and a name"):
        read_coco(coco(tmp_path, categories=[{"id": 1, "name": HALF}]), tmp_path, report)


# --- Places -----------------------------------------------------------------------------------------------------------


def test_lists_with_tabs_blank_lines_and_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf/a/airfield/1.jpg\t0\r\n\r\n  \n/a/b c/2 3.jpg\n/a/4.jpg -1\n")
    assert list(read_places_list(path)) == ["a/airfield/1.jpg", "a/b c/2 3.jpg", "a/4.jpg"]


def test_a_folder_in_place_of_a_list_or_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="cannot be read"):
        list(read_places_list(tmp_path))
    with pytest.raises(SegloopError, match="cannot be read"):
        read_coco(tmp_path, tmp_path, SkipReport(tmp_path / "skipped.json", 1.0))
    with pytest.raises(SegloopError, match="cannot be read"):
        read_category_table(tmp_path)


def test_a_table_of_numbers_is_no_table_of_names(tmp_path: Path) -> None:
    path = tmp_path / "mapping.txt"
    path.write_text("Instacne100\tSceneParse150\tFullADE20K\n1\t\t8\t\t165\n5\t\t15\t\t774\n")
    with pytest.raises(SegloopError, match="numbers where names should be"):
        read_category_table(path)


@pytest.mark.shared
def test_the_mapping_beside_the_real_table_is_refused() -> None:
    # Many categories of one list are one of another, so that an id stands there twice.
    with pytest.raises(SegloopError, match="has the id 5 twice"):
        read_category_table(sample("placeschallenge2017/categoryMapping.txt"))


@pytest.mark.shared
def test_instances_of_real_scenes(tmp_path: Path) -> None:
    """The PNGs were made from real masks; a 36/18/12 count of instances stands in the description of the samples."""
    folder = sample("derived_from_real_ade")
    (tmp_path / "png").mkdir()
    names = sorted(path.name.removesuffix("_instance_RG.png") for path in folder.glob("*_instance_RG.png"))
    for name in names:
        shutil.copy(folder / f"{name}_instance_RG.png", tmp_path / f"png/{name}.png")
    table = sample("placeschallenge2017/instanceInfo100_train.txt")
    with SkipReport(tmp_path / "skipped.json", 0.0) as report:
        found = read_places_challenge(tmp_path / "png", folder, table, report)
    counts = [sum(one["image_id"] == image["id"] for one in found["annotations"]) for image in found["images"]]
    assert counts == [36, 18, 12]
    for image, name in zip(found["images"], names, strict=True):
        pixels = np.asarray(Image.open(folder / f"{name}_instance_RG.png"))
        expected = {int(g): int((pixels[:, :, 1] == g).sum()) for g in np.unique(pixels[:, :, 1]) if g}
        areas = [one["area"] for one in found["annotations"] if one["image_id"] == image["id"]]
        assert areas == list(expected.values())


# --- the pool ---------------------------------------------------------------------------------------------------------


def cut(root: Path, out: Path, **keys: Any) -> list[pool.ShardImages]:
    shard_pool(
        config=PoolConfig(**keys),
        data_root=root,
        seed=0,
        output=out / "shards",
        manifest=out / "manifest.json",
        skipped=out / "skipped.json",
        max_skipped=0.5,
    )
    return [read_shard(path) for path in shard_tables(out / "shards")]


def test_links_in_circles_and_hidden_files_are_not_walked(tmp_path: Path) -> None:
    inside = tmp_path / "images/a"
    inside.mkdir(parents=True)
    for name in ("1.jpg", ".1.jpg", "._1.jpg"):
        (inside / name).touch()
    (inside / ".previews").mkdir()
    (inside / ".previews/1.jpg").touch()
    (inside / "up").symlink_to(tmp_path / "images")
    (inside / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/2.jpg").touch()
    (inside / "link").symlink_to(tmp_path / "elsewhere")
    (shard,) = cut(tmp_path, tmp_path, format="folder", images="images", shards=1)
    assert [Path(name).name for name in shard.file_name] == ["1.jpg", "2.jpg"]


def test_a_name_that_is_not_unicode_is_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/b\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    (shard,) = cut(tmp_path, tmp_path, format="folder", images="images", shards=1)
    assert [Path(name).name for name in shard.file_name] == ["a.jpg"]
    (skipped,) = read_json(tmp_path / "skipped.json")["skipped"]
    assert "not Unicode" in skipped["reason"]


def test_another_table_is_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "iter=1"
    path.mkdir()
    pq.write_table(pa.table({"x": [1, 2]}), path / "0.parquet")
    with pytest.raises(SegloopError, match="no pool shard"):
        read_shard(path / "0.parquet")
    whole = (path / "0.parquet").read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        (path / "0.parquet").write_bytes(whole[:length])
        with pytest.raises(SegloopError, match="cannot be read"):
            read_shard(path / "0.parquet")


@pytest.mark.parametrize("sample_size", [None, 1500])
def test_only_a_block_of_images_is_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_size: int | None
) -> None:
    alive, most = 0, 0

    class Counted(pool.PoolImage):
        def __new__(cls, *values: Any) -> "Counted":
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, *values)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(pool, "_BLOCK", 64)
    monkeypatch.setattr(pool, "PoolImage", Counted)
    (tmp_path / "list.txt").write_text("".join(f"/a/airfield/{n:08}.jpg 0\n" for n in range(3000)))
    found = cut(tmp_path, tmp_path, format="places365", list="list.txt", shards=3, sample=sample_size)
    assert sum(len(shard) for shard in found) == (sample_size or 3000)
    assert 64 <= most <= 2 * 64 + 2


# --- the report -------------------------------------------------------------------------------------------------------


def test_exactly_the_allowed_share_passes(tmp_path: Path) -> None:
    # 0.29 * 100 is 28.999999999999996.
    report = SkipReport(tmp_path / "skipped.json", 0.29)
    report.use(71)
    for record in range(29):
        report.skip("file", record, "reason")
    report.finish()
    report.skip("file", 29, "reason")
    with pytest.raises(SegloopError, match="30 of 101"):
        report.finish()
