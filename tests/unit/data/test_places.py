from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.data import masks
from segloop.data.categories import read_category_table
from segloop.data.places import read_places_list
from segloop.data.places_challenge import read_places_challenge, write_instance_png
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "formats"
TABLE = "Idx\tObject Names\t\t#Inst.\t#Pix.\n1\tbed                \t2189\t49.06\n4\tpotted plant  \t\t9\t3.47\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "png"):
        (tmp_path / name).mkdir()
    (tmp_path / "table.txt").write_text(TABLE)
    return tmp_path


def add(folder: Path, name: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(folder / "png" / f"{name}.png")
    Image.new("RGB", (pixels.shape[1], pixels.shape[0])).save(folder / "images" / f"{name}.jpg")


def read(folder: Path) -> tuple[dict, SkipReport]:
    report = SkipReport(folder / "skipped.json", 1.0)
    return read_places_challenge(folder / "png", folder / "images", folder / "table.txt", report), report


def test_an_instance_is_a_distinct_g_of_the_commonest_r(folder: Path) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[0:3, 0:4] = (1, 10, 0)
    pixels[3:6, 0:4] = (1, 11, 0)
    pixels[0:3, 4:8] = (4, 12, 0)
    pixels[0, 4] = (1, 12, 0)
    pixels[3:6, 4:8] = (4, 13, 7)
    add(folder, "a", pixels)
    found, report = read(folder)
    assert [one["category_id"] for one in found["annotations"]] == [1, 1, 4, 4]
    assert [one["iscrowd"] for one in found["annotations"]] == [0, 0, 0, 1]
    assert [one["area"] for one in found["annotations"]] == [12] * 4
    third = masks.decode(masks.from_json(found["annotations"][2]["segmentation"]))
    np.testing.assert_array_equal(third, pixels[:, :, 1] == 12)
    assert found["categories"] == [{"id": 1, "name": "bed"}, {"id": 4, "name": "potted plant"}]
    assert report.used == 5


def test_images_are_numbered_from_one_in_the_order_of_names(folder: Path) -> None:
    pixels = np.full((3, 4, 3), (1, 1, 0), np.uint8)
    for name in ("b", "a", "c"):
        add(folder, name, pixels)
    found, _ = read(folder)
    assert [(image["id"], Path(image["file_name"]).name) for image in found["images"]] == [
        (1, "a.jpg"),
        (2, "b.jpg"),
        (3, "c.jpg"),
    ]
    assert [one["image_id"] for one in found["annotations"]] == [1, 2, 3]
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3]


def test_what_cannot_be_used_is_named(folder: Path) -> None:
    good = np.full((3, 4, 3), (1, 1, 0), np.uint8)
    for name in ("good", "lost", "grey", "broken", "size"):
        add(folder, name, good)
    (folder / "images/lost.jpg").unlink()
    Image.new("L", (4, 3), 1).save(folder / "png/grey.png")
    content = (folder / "png/broken.png").read_bytes()
    (folder / "png/broken.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (5, 3)).save(folder / "images/size.jpg")
    add(folder, "strange", np.full((3, 4, 3), (2, 1, 0), np.uint8))
    found, report = read(folder)
    assert [Path(image["file_name"]).stem for image in found["images"]] == ["good", "strange"]
    assert len(found["annotations"]) == 1
    reasons = {one["record"]: one["reason"] for one in report.skipped}
    assert "does not exist" in reasons["lost"]
    assert "mode L" in reasons["grey"]
    assert "cannot be read" in reasons["broken"]
    assert "4 x 3 pixels, its image has 5 x 3" in reasons["size"]
    assert reasons["instance 1"] == "has the unknown category 2"


def test_validation_images_may_lie_among_the_training_images(folder: Path) -> None:
    for name in ("images/training", "images/validation", "annotations"):
        (folder / name).mkdir()
    Image.new("RGB", (4, 3)).save(folder / "images/training/ADE_val_00000001.jpg")
    write_instance_png(folder / "annotations/ADE_val_00000001.png", [(1, np.ones((3, 4), bool))], (3, 4))
    report = SkipReport(folder / "skipped.json", 0.0)
    found = read_places_challenge(folder / "annotations", folder / "images/validation", folder / "table.txt", report)
    assert found["images"][0]["file_name"] == str(folder / "images/training/ADE_val_00000001.jpg")


def test_missing_or_empty_folders_and_tables_are_named(folder: Path) -> None:
    with pytest.raises(SegloopError, match="holds no instance PNGs"):
        read(folder)
    (folder / "png").rmdir()
    with pytest.raises(SegloopError, match="is no folder"):
        read(folder)
    for content, message in (
        ("nothing\n", "no line"),
        ("1\t\t5\n2\t\t774\n", "numbers where names"),
        ("1\ta\n1\tb\n", "id 1 twice"),
    ):
        (folder / "table.txt").write_text(content)
        with pytest.raises(SegloopError, match=message):
            read_category_table(folder / "table.txt")
    with pytest.raises(SegloopError, match="cannot be read"):
        read_category_table(folder / "none.txt")


def test_what_is_written_is_read(folder: Path) -> None:
    random = np.random.default_rng(0)
    owner = random.integers(0, 5, (20, 30))
    instances = [(1 if number % 2 else 4, owner == number) for number in range(1, 5)]
    write_instance_png(folder / "png/a.png", instances, (20, 30))
    Image.new("RGB", (30, 20)).save(folder / "images/a.jpg")
    found, _ = read(folder)
    for (category, mask), one in zip(instances, found["annotations"], strict=True):
        assert one["category_id"] == category
        np.testing.assert_array_equal(masks.decode(masks.from_json(one["segmentation"])), mask)


def test_a_png_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    mask = np.ones((2, 2), bool)
    with pytest.raises(SegloopError, match="256 instances"):
        write_instance_png(tmp_path / "a.png", [(1, mask)] * 256, (2, 2))
    with pytest.raises(SegloopError, match="category 256"):
        write_instance_png(tmp_path / "a.png", [(256, mask)], (2, 2))
    assert list(tmp_path.iterdir()) == []


def test_lines_of_places_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        "\ufeff/a/airfield/00000001.jpg 0\n"
        "/a/apartment_building/outdoor/00000002.jpg 8\r\n"
        "\n"
        "Places365_val_00000001.jpg 165\n"
        "b/no label.jpg\n"
        "b/with blanks.jpg 12\n"
        "/b/tab.jpg\t3\n"
        "/b/bar/00000003.jpg",
        encoding="utf-8",
        newline="",
    )
    assert list(read_places_list(path)) == [
        "a/airfield/00000001.jpg",
        "a/apartment_building/outdoor/00000002.jpg",
        "Places365_val_00000001.jpg",
        "b/no label.jpg",
        "b/with blanks.jpg",
        "b/tab.jpg",
        "b/bar/00000003.jpg",
    ]


def test_a_list_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"/a/1.jpg 0\n" * 100_000 + b"\xff\xfe\n")
    lines = read_places_list(path)
    assert next(lines) == "a/1.jpg"
    with pytest.raises(SegloopError, match="not text in UTF-8"):
        list(lines)
    with pytest.raises(SegloopError, match="does not exist"):
        next(read_places_list(tmp_path / "none.txt"))


@pytest.mark.shared
def test_the_real_tables_and_derived_pngs(tmp_path: Path) -> None:
    if not SHARED.exists():
        pytest.skip("the sample data does not lie beside the project")
    table = read_category_table(SHARED / "placeschallenge2017/instanceInfo100_train.txt")
    assert [one["id"] for one in table] == list(range(1, 101))
    assert table[0]["name"] == "bed"
    assert table == read_category_table(SHARED / "placeschallenge2017/instanceInfo100_val.txt")
    for png in (SHARED / "derived_from_real_ade").glob("*_instance_RG.png"):
        name = png.name.removesuffix("_instance_RG.png")
        for target, source in ((f"png/{name}.png", png), (f"images/{name}.jpg", png.with_name(f"{name}.jpg"))):
            (tmp_path / target).parent.mkdir(exist_ok=True)
            (tmp_path / target).symlink_to(source)
    report = SkipReport(tmp_path / "skipped.json", 0.0)
    challenge = SHARED / "placeschallenge2017/instanceInfo100_train.txt"
    found = read_places_challenge(tmp_path / "png", tmp_path / "images", challenge, report)
    report.finish()
    counts = [sum(one["image_id"] == image["id"] for one in found["annotations"]) for image in found["images"]]
    assert counts == [36, 18, 12]
