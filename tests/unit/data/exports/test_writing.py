import json
from pathlib import Path

import pytest
from PIL import Image

from segloop.config import LabelledSetConfig
from segloop.data.exports import FILES, FOLDERS
from segloop.data.exports.gathering import pool_folder
from segloop.data.exports.writing import WRITERS, Source
from segloop.errors import SegloopError
from segloop.files import write_json

from .conftest import NAMES, Exporter, MadeRun, collected, write_images


def test_every_format_has_a_writer_and_a_description() -> None:
    assert list(WRITERS) == [*FILES, *FOLDERS]
    assert all(FILES.values()) and all(FOLDERS.values())


@pytest.mark.parametrize("form", FOLDERS)
def test_a_folder_says_what_it_holds(form: str, export: Exporter, tmp_path: Path) -> None:
    account = export(form)
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == account
    assert (account["format"], account["images"], account["masks"]) == (form, 3, 6)
    assert [Path(path).parent.name for path in account["sources"]] == ["iter_1", "iter_2"]
    assert (tmp_path / "out" / "categories.csv").is_file()
    photographs = [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    expected = {"coco_folder": 0, "cityscapes": 2}.get(form, 3)
    assert len(photographs) == expected and all(path.resolve().is_file() for path in photographs)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_what_is_there_is_replaced_on_request_alone(form: str, export: Exporter, tmp_path: Path) -> None:
    name = "out.json" if form in FILES else "out"
    export(form, name)
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("out*"))
    with pytest.raises(SegloopError, match="Choose another --out, or replace it with --force"):
        export(form, name)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("out*")) == before
    export(form, name, force=True)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("out*")) != before


def test_force_removes_nothing_that_no_export_wrote(export: Exporter, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("the only copy")
    with pytest.raises(SegloopError, match=r"holds thesis\.tex and other files that no export wrote"):
        export("yolo", force=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "the only copy"
    with pytest.raises(SegloopError, match="is a folder, and the format is one file"):
        export("coco", force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SegloopError, match="is no folder, and the format is one"):
        export("yolo", "file", force=True)


def test_an_empty_folder_is_used(export: Exporter, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export("yolo")
    assert (tmp_path / "out" / "data.yaml").exists()


def test_a_failed_export_leaves_nothing(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    (made_run.directory.parent / "data" / "photographs" / NAMES[12]).unlink()
    with pytest.raises(SegloopError, match=r"00000001\.png is missing\. Check --image-root, or"):
        export("yolo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]
    export("yolo", images="none")


def test_images_beside_one_file_are_refused(export: Exporter) -> None:
    with pytest.raises(SegloopError, match=r"coco is one file and holds no images\. Export to coco_folder"):
        export("coco", "out.json", images="copy")


def test_a_run_without_masks_is_refused(export: Exporter, tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match=r"holds no results/iter_\*/collected\.json"):
        export("coco", "out.json", source=Source(run=tmp_path))
    write_json(tmp_path / "empty" / "results" / "iter_1" / "collected.json", collected(1, [], tmp_path))
    with pytest.raises(SegloopError, match=r"no mask to export \(0 were skipped\)"):
        export("coco", "out.json", source=Source(run=tmp_path / "empty"))


def test_names_without_a_configuration_lead_nowhere_else(export: Exporter, made_run: MadeRun, tmp_path: Path) -> None:
    path = made_run.directory / "results" / "iter_1" / "collected.json"
    value = json.loads(path.read_text())
    for image in value["images"]:
        image["file_name"] = "../data/photographs/" + NAMES[image["id"]]
    write_json(path, value)
    (made_run.directory / "results" / "config.yaml").unlink()
    assert pool_folder(made_run.directory) is None
    export("coco_folder", source=Source(run=made_run.directory, iterations=(1,)), images="copy")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    names = [image["file_name"] for image in written["images"]]
    assert names == [f"data/photographs/{NAMES[3]}", f"data/photographs/{NAMES[7]}"]
    assert all((tmp_path / "out" / "images" / "train" / name).is_file() for name in names)


def test_a_run_started_by_segloop_knows_its_pool_before_it_ends(made_run: MadeRun) -> None:
    folder = pool_folder(made_run.directory)
    config = made_run.directory / "results" / "config.yaml"
    config.unlink()
    start = made_run.directory / ".snakemake" / "segloop.start.json"
    write_json(start, {"config": {"data_root": "../data", "pool": {"images": "photographs"}}})
    assert pool_folder(made_run.directory) == folder == made_run.directory.parent / "data" / "photographs"


def test_any_data_set_goes_out(export: Exporter, tmp_path: Path) -> None:
    write_images(tmp_path / "photographs")
    value = {
        "images": [
            {"id": 3, "file_name": NAMES[3], "width": 40, "height": 24},
            {"id": 7, "file_name": NAMES[7], "width": 40, "height": 24},
        ],
        "annotations": [
            {"id": 5, "image_id": 3, "category_id": 2, "iscrowd": 0, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]},
            {"id": 9, "image_id": 3, "category_id": 2, "iscrowd": 0, "segmentation": [[2, 2, 12, 2]], "score": 0.5},
            {"id": 4, "image_id": 7, "category_id": 1, "score": 0.25,
             "segmentation": {"size": [24, 40], "counts": [0, 48, 912]}},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip
    write_json(tmp_path / "set.json", value)
    # A path with a detour names the same folder.
    folder = tmp_path / "data" / ".." / "photographs"
    config = LabelledSetConfig(annotations=str(tmp_path / "set.json"), images=str(folder))
    account = export("coco_folder", source=Source(dataset=config))
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [one["file_name"] for one in written["images"]] == [NAMES[3], NAMES[7]]
    assert [(one["id"], one.get("source_id"), one["area"], one.get("score")) for one in written["annotations"]] == [
        (1, 5, 100, None),
        (2, 4, 48, 0.25),
    ]
    (skipped,) = account["skipped"]
    assert skipped["record"] == "annotation 9" and "fewer than three points" in skipped["reason"]
    with Image.open(tmp_path / "out" / "images" / "train" / NAMES[7]) as image:
        assert image.size == (40, 24)
