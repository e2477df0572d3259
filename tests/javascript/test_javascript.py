"""The pages' own code without a browser: Node's test runner, the type check, and 10,000 masks against pycocotools."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segloop.data import masks

from ..conftest import require_program

HERE = Path(__file__).resolve().parent
MASKS = 10_000


@pytest.fixture(scope="module")
def node() -> str:
    return require_program("node")


def test_the_javascript_tests_pass(node: str) -> None:
    done = subprocess.run([node, "--test"], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "# tests 0" not in done.stdout


def test_the_pages_pass_the_type_check(node_modules: Path) -> None:
    command = [str(node_modules / ".bin" / "tsc"), "--project", "tsconfig.json"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """Noise of any density, or boxes and holes, up to 48 pixels a side."""
    height, width = rng.integers(1, 48, 2)
    if rng.random() < 0.4:
        return np.asarray(rng.random((height, width)) < rng.random())
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 6)):
        top, bottom = np.sort(rng.integers(0, height + 1, 2))
        left, right = np.sort(rng.integers(0, width + 1, 2))
        mask[top:bottom, left:right] = rng.random() < 0.7
    return mask


def test_ten_thousand_masks_are_those_of_pycocotools_in_both_directions(node: str) -> None:
    rng = np.random.default_rng(2019)
    bitmaps = [random_mask(rng) for _ in range(MASKS)]
    rles = [masks.encode(bitmap) for bitmap in bitmaps]
    lines = [
        json.dumps(
            {
                "height": bitmap.shape[0],
                "width": bitmap.shape[1],
                "pixels": base64.b64encode(bitmap.astype(np.uint8).tobytes()).decode(),
                "counts": rle["counts"].decode(),
            }
        )
        for bitmap, rle in zip(bitmaps, rles, strict=True)
    ]
    command = [node, "compare_rle.js"]
    done = subprocess.run(command, cwd=HERE, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == MASKS
    areas, boxes = masks.area(rles), masks.boxes(rles)
    for number, (record, bitmap, rle) in enumerate(zip(records, bitmaps, rles, strict=True)):
        counts = rle["counts"].decode()
        assert record["counts"] == record["cropped"] == record["again"] == counts, number
        assert base64.b64decode(record["pixels"]) == bitmap.astype(np.uint8).tobytes(), number
        assert record["area"] == areas[number]
        assert record["box"] == boxes[number].tolist()


FIXTURES: dict[str, list[dict[str, Any]]] = json.loads((HERE / "fixtures" / "coco.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("record", FIXTURES["masks"], ids=lambda record: record["name"])
def test_the_server_reads_the_same_masks(record: dict[str, Any]) -> None:
    shape = (record["height"], record["width"])
    bitmap = np.array(record["pixels"], bool).reshape(shape)
    rle = masks.check({"size": list(shape), "counts": record["counts"]}, shape)
    assert masks.encode(bitmap) == rle
    np.testing.assert_array_equal(masks.decode(rle), bitmap)
    assert masks.area([rle])[0] == record["area"]
    assert masks.boxes([rle])[0].tolist() == record["box"]


def test_the_server_reads_the_same_polygons_and_pairs() -> None:
    for record in FIXTURES["polygons"]:
        rle = masks.from_polygons(record["polygons"], record["height"], record["width"])
        assert masks.to_json(rle)["counts"] == record["counts"]
    for record in FIXTURES["pairs"]:
        a, b = masks.check(record["a"]), masks.check(record["b"])
        assert masks.iou([a], [b])[0, 0] == record["iou"]
        assert masks.iou([a], [b], [True])[0, 0] == record["crowd"]
        assert masks.to_json(masks.union([a, b]))["counts"] == record["union"]
