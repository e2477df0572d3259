from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.config import LabelledSetConfig
from segloop.data import masks
from segloop.data.places_challenge import write_instance_png
from segloop.data.seed import import_labelled_set
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:5] = True


def run(root: Path, config: LabelledSetConfig, max_skipped: float = 0.01) -> dict:
    import_labelled_set(
        config=config,
        data_root=root,
        output=root / "out/train.json",
        skipped=root / "out/train.skipped.json",
        max_skipped=max_skipped,
    )
    return read_json(root / "out/train.json")


def coco(root: Path, *, annotations: bool = True, images: bool = True) -> LabelledSetConfig:
    (root / "images").mkdir(exist_ok=True)
    Image.new("RGB", (8, 6)).save(root / "images/a.png")
    one = {"id": 9, "image_id": 1, "category_id": 1, "segmentation": masks.to_json(masks.encode(MASK))}
    value = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}] if images else [],
        "annotations": [one] if annotations else [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    write_json(root / "train.json", value)
    return LabelledSetConfig()


def places(root: Path) -> LabelledSetConfig:
    (root / "images").mkdir()
    Image.new("RGB", (8, 6)).save(root / "images/a.jpg")
    write_instance_png(root / "png/a.png", [(2, MASK)], (6, 8))
    (root / "table.txt").write_text("Idx\tName\n2\tthing  \t\t3\t4\n")
    return LabelledSetConfig(format="places_challenge", annotations="png", images="images", categories="table.txt")


@pytest.mark.parametrize("make", [coco, places])
def test_both_formats_become_the_same_kind_of_file(tmp_path: Path, make: object) -> None:
    found = run(tmp_path, make(tmp_path))  # type: ignore[operator]
    assert [one["name"] for one in found["categories"]] == ["thing"]
    (one,) = found["annotations"]
    np.testing.assert_array_equal(masks.decode(masks.from_json(one["segmentation"])), MASK)
    assert Path(found["images"][0]["file_name"]).exists()
    assert read_json(tmp_path / "out/train.skipped.json")["skipped"] == []


def test_an_empty_set_is_refused_and_leaves_no_output(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="gives no annotations"):
        run(tmp_path, coco(tmp_path, annotations=False))
    with pytest.raises(SegloopError, match="gives no images"):
        run(tmp_path, coco(tmp_path, annotations=False, images=False))
    assert not (tmp_path / "out/train.json").exists()


def test_too_many_skipped_records_stop_the_job_but_are_listed(tmp_path: Path) -> None:
    config = coco(tmp_path)
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(SegloopError, match=r"2 of 2 records.*a\.png does not exist"):
        run(tmp_path, config)
    assert len(read_json(tmp_path / "out/train.skipped.json")["skipped"]) == 2
    assert not (tmp_path / "out/train.json").exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"train\.json does not exist"):
        run(tmp_path, LabelledSetConfig())
    with pytest.raises(SegloopError, match="category table"):
        run(tmp_path, LabelledSetConfig(format="places_challenge"))
