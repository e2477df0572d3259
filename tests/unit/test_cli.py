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
