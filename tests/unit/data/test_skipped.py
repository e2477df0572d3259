from pathlib import Path

import pytest

from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.files import read_json


def test_the_report_names_every_skipped_record(tmp_path: Path) -> None:
    with SkipReport(tmp_path / "skipped.json", 0.5) as report:
        report.use(2)
        report.skip(Path("a.json"), "annotation 3", "has an empty mask")
    value = read_json(tmp_path / "skipped.json")
    assert value["used"] == 2
    assert value["skipped"] == [{"file": "a.json", "record": "annotation 3", "reason": "has an empty mask"}]


def test_the_limit_itself_is_allowed_and_more_is_not(tmp_path: Path) -> None:
    report = SkipReport(tmp_path / "skipped.json", 0.01)
    report.use(99)
    report.skip("a", 1, "bad")
    report.finish()
    report.skip("a", 2, "worse")
    with pytest.raises(SegloopError, match=r"2 of 101 records.*a, 1: bad; a, 2: worse"):
        report.finish()
    assert len(read_json(tmp_path / "skipped.json")["skipped"]) == 2


@pytest.mark.parametrize(("share", "skipped"), [(0.29, 29), (0.07, 7), (0.57, 57)])
def test_the_limit_is_not_missed_by_rounding(tmp_path: Path, share: float, skipped: int) -> None:
    report = SkipReport(tmp_path / "skipped.json", share)
    report.use(100 - skipped)
    for number in range(skipped):
        report.skip("a", number, "bad")
    report.finish()
    report.skip("a", skipped, "bad")
    with pytest.raises(SegloopError):
        report.finish()


def test_nothing_at_all_is_no_error(tmp_path: Path) -> None:
    SkipReport(tmp_path / "skipped.json", 0.0).finish()
    assert read_json(tmp_path / "skipped.json")["used"] == 0


def test_an_error_inside_is_not_covered_by_the_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), SkipReport(tmp_path / "skipped.json", 0.0) as report:
        report.skip("a", 1, "bad")
        raise ValueError("inside")
    assert not (tmp_path / "skipped.json").exists()
