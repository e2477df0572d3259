import csv
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from segloop.files import write_json
from segloop.reporting import dataset_sizes
from segloop.reporting.dataset_sizes import LATER, OWN, THESIS, DataSet, of_run, plot_dataset_sizes


def draw(own: list[DataSet], folder: Path) -> tuple[Path, Path, Path]:
    paths = folder / "a.svg", folder / "a.png", folder / "a.csv"
    plot_dataset_sizes(own, svg=paths[0], png=paths[1], table=paths[2])
    return paths


def test_the_numbers_of_the_thesis(tmp_path: Path) -> None:
    svg, png, table = draw([DataSet("mine", 200, 1000, OWN)], tmp_path)
    with table.open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert [
        (rows[name]["images"], rows[name]["masks"]) for name in ("PASCAL VOC", "COCO", "ADE20K", "Open Images")
    ] == [
        ("10000", "30000"),
        ("163000", "1200000"),
        ("25000", "450000"),
        ("1000000", "2800000"),
    ]
    assert [rows[name]["masks"] for name in ("Cityscapes", "Mapillary Vistas", "BDD")] == ["", "", ""]
    assert rows["mine"]["masks_an_image"] == "5" and rows["mine"]["source"] == "own"
    words = svg.read_text(encoding="utf-8")
    for one in (*THESIS, *LATER):
        assert f"<!-- {one.name} -->" in words
    with Image.open(png) as image:
        assert image.width > 1000


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    mine = [DataSet("mine", 200, 1000, OWN)]
    first = [path.read_bytes() for path in draw(mine, tmp_path / "a")]
    assert [path.read_bytes() for path in draw(mine, tmp_path / "b")] == first


OWN_SETS = {
    "none": [],
    "tiny": [("mine", 1, 1)],
    "dense": [("mine", 10, 9000)],
    "sparse": [("mine", 1_000_000, 2_000)],
    "on VOC": [("my data set", 10_000, 30_000)],
    "on COCO": [("my data set", 163_000, 1_200_000)],
    "on ADE20K": [("my data set", 25_500, 500_000)],
    "as large as Places": [("my data set", 8_000_000, 46_000_000)],
    "larger": [("my data set", 90_000_000, 10**10)],
    "a run": [("iteration 1", 300, 403), ("", 320, 500), ("iteration 3", 330, 600)],
    "a run that grows fast": [("iteration 1", 20, 22), ("iteration 2", 30_000, 90_000)],
    "nothing collected": [("iteration 1", 0, 0)],
}


@pytest.mark.parametrize("case", OWN_SETS)
def test_no_name_lies_on_another(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(dataset_sizes, "save", lambda figure, *paths: figures.append(figure))
    draw([DataSet(name, images, count, OWN) for name, images, count in OWN_SETS[case]], tmp_path)
    (figure,) = figures
    (axes,) = figure.axes
    figure.draw_without_rendering()
    extents = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
    upright = [(name, extent) for name, extent in extents if name not in ("Cityscapes", "Mapillary Vistas", "BDD")]
    overlapping = [(a, b) for (a, one), (b, other) in combinations(upright, 2) if one.overlaps(other)]
    assert overlapping == []
    for name, extent in upright:
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.x1, name


def test_a_run_grows_from_iteration_to_iteration(tmp_path: Path) -> None:
    files = []
    for number, images in enumerate(([1, 2], [2, 3], [9]), start=1):
        path = tmp_path / f"{number}.json"
        annotations = [{"id": n, "image_id": images[0]} for n in range(number)]
        write_json(path, {"images": [{"id": image} for image in images], "annotations": annotations, "categories": []})
        files.append(path)
    points = of_run(files)
    assert [(one.name, one.images, one.masks) for one in points] == [
        ("iteration 1", 2, 1),
        ("", 3, 3),
        ("iteration 3", 4, 6),
    ]
    assert of_run([]) == []
