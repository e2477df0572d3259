from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segloop.annotation.certificates import Certificate, write_certificates
from segloop.reporting.claims import tabulate_certificates

from .conftest import row
from .test_table31 import Cells

ONE = Certificate("1", None, "fixed", 0.9, 0.025, 1200, 30, 100, 2, 0.934, 0.93, True, 0.01, 0.925)


def cells(html: Path) -> list[list[str]]:
    parser = Cells()
    parser.feed(html.read_text(encoding="utf-8"))
    assert parser.loaded == []
    return parser.rows


def test_every_audit_stands_in_the_table(summary: Callable[..., Path], tmp_path: Path) -> None:
    write_certificates(tmp_path / "1.json", (ONE,))
    write_certificates(tmp_path / "2.json", (replace(ONE, category=7, passed=False, lower=0.5, claimed=0.4),))
    html = tmp_path / "claims.html"
    made = summary(row(0), row(1, precision=0.95), row(2))
    tabulate_certificates(summary=made, certificates=[tmp_path / "1.json", tmp_path / "2.json"], html=html)
    _, first, second = cells(html)
    assert first[:9] == ["1", "all accepted (fixed)", "1,200", "30", "100", "2", "0.900", "0.934", "0.925"]
    assert first[-1] == "✓ yes"
    assert second[:2] == ["2", "category 7 (fixed)"]
    assert second[-1] == "✗ no"
    assert "95.0 % of the accepted masks are good" in html.read_text(encoding="utf-8")


def test_a_run_without_audits_claims_nothing(summary: Callable[..., Path], tmp_path: Path) -> None:
    tabulate_certificates(summary=summary(row(0)), certificates=[], html=tmp_path / "claims.html")
    assert "nothing is claimed" in (tmp_path / "claims.html").read_text(encoding="utf-8")
