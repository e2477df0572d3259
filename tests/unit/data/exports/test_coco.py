import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO

from segloop.data import masks
from segloop.data.exports.coco import FREQUENCIES
from segloop.data.exports.writing import Source, export_set
from segloop.errors import SegloopError
from segloop.files import write_json

from .conftest import CATEGORIES, HEIGHT, NAMES, WIDTH, Exporter, MadeRun, other_projects


def pairs(coco: COCO) -> list[tuple[int, int, bytes]]:
    return [
        (a["image_id"], a["category_id"], masks.encode(coco.annToMask(a) == 1)["counts"]) for a in coco.anns.values()
    ]


def wanted(run: MadeRun) -> list[tuple[int, int, bytes]]:
    return [(image, category, masks.encode(mask)["counts"]) for image, category, mask in run.expected]


def test_pycocotools_reads_the_same_masks_bit_for_bit(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    account = export("coco", "out.json")
    with other_projects():
        coco = COCO(str(tmp_path / "out.json"))
        assert pairs(coco) == wanted(made_run)
    assert sorted(coco.anns) == list(range(1, 7))
    assert {image["file_name"] for image in coco.imgs.values()} == set(NAMES.values())
    assert coco.dataset["categories"] == CATEGORIES
    assert coco.dataset["info"]["sources"] == ["iter_1/collected.json", "iter_2/collected.json"]
    assert account["masks"] == 6 and account["losses"] == {"counts": {}}


def test_area_and_box_are_those_of_the_mask_and_provenance_goes_along(export: Exporter, tmp_path: Path) -> None:
    export("coco", "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    for one in written["annotations"]:
        rle = masks.check(one["segmentation"], (HEIGHT, WIDTH))
        assert one["area"] == masks.area([rle])[0]
        assert one["bbox"] == masks.boxes([rle])[0].tolist()
        assert one["provenance"]["iteration"] in (1, 2)
        assert "source_id" not in one
    assert {one["score"] for one in written["annotations"]} == {0.9, 0.8, 0.7, 0.6, 0.95, 0.5}


def test_results_load_into_pycocotools_and_score_a_perfect_ap(export: Exporter, tmp_path: Path) -> None:
    from pycocotools.cocoeval import COCOeval

    export("coco", "truth.json")
    export("coco_results", "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(set(one) == {"image_id", "category_id", "segmentation", "score"} for one in results)
    with other_projects():
        truth = COCO(str(tmp_path / "truth.json"))
        loaded = truth.loadRes(str(tmp_path / "results.json"))
        assert pairs(loaded) == pairs(truth)
        # The area is the mask's: with a box in the file it would be the box's, and a mask's hole would count.
        assert [one["area"] for one in loaded.anns.values()] == [one["area"] for one in truth.anns.values()]
        evaluation = COCOeval(truth, loaded, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    # The table that a list of results has no place for.
    assert json.loads((tmp_path / "results.export.json").read_text())["categories"] == CATEGORIES


def test_lvis_reads_the_same_masks(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("lvis", "lvis.json")
    with other_projects():
        from lvis import LVIS

        read = LVIS(str(tmp_path / "lvis.json"))
        found = [(a["image_id"], a["category_id"], read.ann_to_mask(a) == 1) for a in read.anns.values()]
    assert [(i, c, masks.encode(m)["counts"]) for i, c, m in found] == wanted(made_run)
    person = read.cats[24]
    assert (person["image_count"], person["instance_count"], person["frequency"]) == (3, 3, "r")
    assert person["synset"] == "person" and person["synonyms"] == ["person"]
    assert read.imgs[3]["not_exhaustive_category_ids"] == [24, 26, 33]
    assert read.imgs[3]["neg_category_ids"] == []
    assert not any("iscrowd" in one for one in read.anns.values())
    assert FREQUENCIES == ((10, "r"), (100, "c"))


def test_lvis_evaluates_its_own_results(export: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # lvis 0.5.3 is older than NumPy 1.24, which dropped this name.
    monkeypatch.setattr(np, "float", float, raising=False)
    export("lvis", "lvis.json")
    export("coco_results", "results.json")
    with other_projects():
        from lvis import LVIS, LVISEval, LVISResults

        truth = LVIS(str(tmp_path / "lvis.json"))
        evaluation = LVISEval(truth, LVISResults(truth, str(tmp_path / "results.json")), "segm")
        evaluation.run()
    assert evaluation.get_results()["AP"] == pytest.approx(1.0)


def test_datumaro_reads_the_folder(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("coco_folder", images="copy", split="val")
    with other_projects():
        import datumaro

        read = datumaro.Dataset.import_from(str(tmp_path / "out"), "coco")
        labels = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
        found = []
        for item in read:
            assert item.subset == "val"
            assert item.media.data.shape == (HEIGHT, WIDTH, 3)
            for one in (one for one in item.annotations if one.type is datumaro.AnnotationType.mask):
                found.append((item.attributes["id"], labels[one.label], masks.encode(one.image.astype(bool))["counts"]))
    names = {category["id"]: category["name"] for category in CATEGORIES}
    assert sorted(found) == sorted((i, names[c], counts) for i, c, counts in wanted(made_run))


def test_one_category_alone(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    source = Source(run=made_run.directory, categories=("potted plant, flower", "33"))
    export("coco", "out.json", source=source)
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["id"] for one in written["categories"]] == [26, 33]
    assert {one["image_id"] for one in written["annotations"]} == {one["id"] for one in written["images"]} == {3, 7}
    with pytest.raises(SegloopError, match="no category 'persons'; it has person, potted"):
        export("coco", "other.json", source=Source(run=made_run.directory, categories=("persons",)))


def test_one_iteration_alone(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    export("coco", "out.json", source=Source(run=made_run.directory, iterations=(2,)))
    written = json.loads((tmp_path / "out.json").read_text())
    assert {one["provenance"]["iteration"] for one in written["annotations"]} == {2}
    with pytest.raises(SegloopError, match=r"nothing in iteration 5; it has \[1, 2\]"):
        export("coco", "other.json", source=Source(run=made_run.directory, iterations=(5,)))


def test_a_damaged_mask_is_named_and_the_rest_is_exported(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    path = made_run.directory / "results" / "iter_1" / "collected.json"
    value = json.loads(path.read_text())
    value["annotations"][1]["segmentation"]["counts"] = "0" * 9
    write_json(path, value)
    account = export("coco", "out.json")
    assert account["masks"] == 5
    (skipped,) = account["skipped"]
    assert skipped["record"] == "annotation 2" and "runs that sum to" in skipped["reason"]


def test_what_a_format_cannot_hold_is_left_out_and_named(tmp_path: Path, made_run: MadeRun) -> None:
    value = json.loads((made_run.directory / "results" / "iter_1" / "collected.json").read_text())
    value["annotations"][0] |= {"iscrowd": 1}
    value["annotations"][1] |= {"score": float("nan")}
    target = tmp_path / "other" / "results" / "iter_1" / "collected.json"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(value))
    source = Source(run=tmp_path / "other")
    account = export_set(source, "coco_results", tmp_path / "x.json")
    assert account["losses"]["counts"] == {
        "crowd left out: the format has none": 1,
        "score that is no finite number": 1,
    }
    lines = (tmp_path / "x.losses.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[1].endswith("crowd left out: the format has none")
    with pytest.raises(SegloopError, match=r"record 2 holds a number that JSON has not \(NaN or infinity\)"):
        export_set(source, "lvis", tmp_path / "y.json")
    assert sorted(path.name for path in tmp_path.glob("*y*")) == []


drawn = st.lists(arrays(np.bool_, (9, 11)).filter(lambda mask: bool(mask.any())), min_size=1, max_size=5)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn)
def test_any_mask_goes_out_and_in_again(tmp_path: Path, shapes: list[Any]) -> None:
    """Holes, single pixels, masks at the border: what pycocotools reads has the same run lengths."""
    source = {
        "images": [{"id": 0, "file_name": "0.png", "width": 11, "height": 9}],
        "annotations": [
            {"id": number, "image_id": 0, "category_id": 1, "segmentation": masks.to_json(masks.encode(mask)),
             "area": int(mask.sum()), "bbox": [0, 0, 1, 1], "iscrowd": 0}
            for number, mask in enumerate(shapes, start=1)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    write_json(tmp_path / "run" / "results" / "iter_1" / "collected.json", source)
    export_set(Source(run=tmp_path / "run"), "coco", tmp_path / "out.json", force=True)
    with other_projects():
        coco = COCO(str(tmp_path / "out.json"))
        read = [coco.annToMask(one) == 1 for one in coco.anns.values()]
    for mask, again in zip(shapes, read, strict=True):
        np.testing.assert_array_equal(mask, again)
