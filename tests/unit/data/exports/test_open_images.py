import csv
from pathlib import Path

import numpy as np
from PIL import Image

from segloop.data import masks
from segloop.data.exports.open_images import label_name

from .conftest import CATEGORIES, HEIGHT, NAMES, WIDTH, Exporter, MadeRun, other_projects

FLAT = {name.replace("/", "__").rpartition(".")[0]: number for number, name in NAMES.items()}


def test_the_table_names_every_mask(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("open_images", split="validation")
    table = tmp_path / "out" / "annotations" / "validation-annotations-object-segmentation.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        with Image.open(tmp_path / "out" / "masks" / "validation" / row["MaskPath"]) as image:
            assert (image.mode, image.size) == ("1", (WIDTH, HEIGHT))
            mask = np.asarray(image).astype(bool)
        ys, xs = np.nonzero(mask)
        edges = [float(row[key]) for key in ("BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")]
        wide, high = [xs.min(), xs.max() + 1], [ys.min(), ys.max() + 1]
        np.testing.assert_allclose(edges, [*(x / WIDTH for x in wide), *(y / HEIGHT for y in high)], atol=1e-6)
        assert row["MaskPath"] == f"{row['ImageID']}_{row['LabelName'].replace('/', '')}_{row['BoxID']}.png"
        found.append((FLAT[row["ImageID"]], int(row["LabelName"].removeprefix("/x/")), masks.encode(mask)["counts"]))
    assert found == [(image, category, masks.encode(mask)["counts"]) for image, category, mask in made_run.expected]


def test_datumaro_reads_the_same_masks(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("open_images", images="copy")
    with other_projects():
        import datumaro

        read = datumaro.Dataset.import_from(str(tmp_path / "out"), "open_images")
        labels = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
        found = [
            (FLAT[item.id], labels[one.label], masks.encode(one.image.astype(bool))["counts"])
            for item in read
            for one in item.annotations
        ]
    names = {category["id"]: label_name(category) for category in CATEGORIES}
    assert sorted(found) == sorted((i, names[c], masks.encode(m)["counts"]) for i, c, m in made_run.expected)


def test_a_category_of_open_images_keeps_its_machine_name() -> None:
    assert label_name({"id": 4, "name": "cat", "label": "/m/01yrx"}) == "/m/01yrx"
    assert label_name({"id": 4, "name": "cat", "label": 7}) == "/x/4"
