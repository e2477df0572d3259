import json
from pathlib import Path

import pytest

from segloop.annotation.people import read_names, write_name
from segloop.cli import main


def test_an_invalid_configuration_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("detector: {architekture: tiny}\n")
    assert main(["run", "--configfile", str(path), "--directory", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the configuration is not valid")
    assert "did you mean detector.architecture?" in error
    assert not (tmp_path / "run").exists()


def test_compare_tells_same_from_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name / "results").mkdir(parents=True)
        (tmp_path / name / "results" / "summary.json").write_text(f'{{"questions": {value}}}\n')
    assert main(["compare", "--exact", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "hold the same results" in capsys.readouterr().out
    assert main(["compare", "--exact", str(tmp_path / "a"), str(tmp_path / "c")]) == 1
    assert "summary.json" in capsys.readouterr().out


def test_no_command_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2


def test_forget_removes_a_name_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_name(tmp_path, "p1", "Ada Example")
    words = ["forget", "--annotator", "p1", "--answers", str(tmp_path)]
    assert main(words) == 0
    assert "p1 is forgotten" in capsys.readouterr().out
    assert read_names(tmp_path) == {}
    assert main(words) == 1
    assert "holds no annotator 'p1'" in capsys.readouterr().err


def test_export_writes_and_tells_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = [[2, 2, 12, 2, 12, 12, 2, 12]], [[20, 2, 30, 2, 30, 12, 20, 12], [20, 15, 22, 15, 22, 17, 20, 17]], [[1, 2]]
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "segmentation": segmentation}
        for number, segmentation in enumerate(masks, start=1)
    ]
    value = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 24}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(value))
    words = ["export", "--annotations", str(tmp_path / "set.json"), "--format", "yolo", "--out", str(tmp_path / "out")]
    assert main([*words, "--images", "none"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"2 masks on 1 images to {tmp_path / 'out'} (yolo)\n  1 x has parts of at most 4 pixels\n")
    assert "1 of 2 unchanged" in said
    assert "annotation 3: has a polygon (part 0) of fewer than three points" in said
    assert (tmp_path / "out" / "labels" / "train" / "1.txt").read_text().count("\n") == 2
    assert main([*words, "--images", "none"]) == 1
    assert "replace it with --force" in capsys.readouterr().err
    assert main([*words, "--iteration", "1", "--force"]) == 1
    assert "--iteration belongs to --run" in capsys.readouterr().err
    assert main([*words, "--split", "../..", "--force"]) == 1
    assert "becomes a folder" in capsys.readouterr().err
    assert main([*words, "--read-as", "kodak", "--force"]) == 1
    assert "kodak is none of coco, coco_results" in capsys.readouterr().err


def test_doctor_says_by_its_status_whether_a_set_is_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    square = {"image_id": 1, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
    value = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 24}],
        "annotations": [square | {"id": 1}, square | {"id": 2, "image_id": 7}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path, copy = tmp_path / "set.json", tmp_path / "copy.json"
    path.write_text(json.dumps(value))
    assert main(["doctor", str(path), "--repaired", str(copy)]) == 3
    captured = capsys.readouterr()
    assert "bad: annotation 2: belongs to the image 7" in captured.out
    assert captured.err == f"the repaired copy is {copy}\n"
    assert main(["doctor", str(copy)]) == 0
    capsys.readouterr()
    assert main(["doctor", str(path), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["annotations"] == {"all": 2, "usable": 1}
    assert main(["doctor", str(path), "--repaired", str(copy)]) == 1
    assert "Choose another place for the repaired copy" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path / "nothing")]) == 1
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("")
    assert main(["doctor", str(tmp_path / "text")]) == 4
    path.write_text(json.dumps([square | {"score": 0.5}]))
    assert main(["doctor", str(path)]) == 4
    assert "without the size of the image" in capsys.readouterr().out


def test_stats_of_a_data_set_and_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    square = {"category_id": 1, "segmentation": {"size": [10, 10], "counts": [0, 20, 80]}, "iscrowd": 0}
    square |= {"area": 20, "bbox": [0, 0, 2, 10]}
    value = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 10, "height": 10} for number in (1, 2)],
        "annotations": [square | {"id": 1, "image_id": 1}, square | {"id": 2, "image_id": 9}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "set.json"
    path.write_text(json.dumps(value))
    assert main(["stats", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: 2 images, 1 of them with masks\nmasks: 1, and 0 crowds; categories: 1 of 1 used\n")
    assert said.endswith("1 records could not be used and are not counted; `segloop doctor` lists them\n")
    assert main(["stats", str(path), "--json", "--fast", "--figure", str(tmp_path / "figure"), "--name", "mine"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instances"]["masks"] == 1 and found["holes"] is None and len(found["skipped"]) == 1
    assert sorted(file.suffix for file in (tmp_path / "figure").iterdir()) == [".csv", ".png", ".svg"]
    assert "mine,2,1,0.5,own" in (tmp_path / "figure" / "dataset_sizes.csv").read_text()
    for iteration in (1, 2):
        target = tmp_path / "run" / "results" / f"iter_{iteration}" / "collected.json"
        target.parent.mkdir(parents=True)
        kept = [square | {"id": 1, "image_id": iteration, "provenance": {"iteration": iteration}}]
        target.write_text(json.dumps(value | {"images": value["images"][iteration - 1 :][:1], "annotations": kept}))
    assert main(["stats", "--run", str(tmp_path / "run"), "--figure", str(tmp_path / "run" / "figure")]) == 0
    said = capsys.readouterr().out
    assert "2 images, 2 of them with masks" in said and "collected: 1 in iteration 1, 1 in iteration 2" in said
    assert "iteration 2,2,2,1,own" in (tmp_path / "run" / "figure" / "dataset_sizes.csv").read_text()
    assert main(["stats"]) == 1
    assert "Name a data set, or a run by --run" in capsys.readouterr().err
