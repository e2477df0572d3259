"""The first cases of `benchmarks/fuzz.py`, which runs a million."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from segloop.randomness import generator

Modules = Callable[[str], ModuleType]


# Starlette closes the file of a broken upload when its memory is freed, not before.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function SpooledTemporaryFile")
@pytest.mark.parametrize(
    ("kind", "count", "refused"),
    [
        ("masks", 300, "refused"),
        ("json", 200, "refused"),
        ("images", 200, "refused"),
        ("configuration", 300, "refused"),
        ("logs", 300, "refused"),
        ("bundles", 300, "refused"),
        ("requests", 1500, "status 400"),
    ],
)
def test_hostile_input_is_refused_or_sound(
    benchmark_module: Modules, tmp_path: Path, kind: str, count: int, refused: str
) -> None:
    case = benchmark_module("fuzz").CASES[kind](tmp_path)
    outcomes = Counter(case(generator("fuzz", kind, 1, number)) for number in range(count))
    assert outcomes[refused] > count / 20
    assert outcomes.total() - outcomes[refused] > count / 100


def test_every_kind_has_a_share_and_a_description(benchmark_module: Modules) -> None:
    fuzz = benchmark_module("fuzz")
    assert fuzz.CASES.keys() == fuzz.SHARES.keys() == fuzz.WHAT.keys()
    assert sum(fuzz.SHARES.values()) == pytest.approx(1)


def test_a_process_that_dies_is_reported_with_its_case(
    benchmark_module: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzz = benchmark_module("fuzz")
    # The process is a new one, so that what kills it must be part of the request: no room for the libraries.
    outcome = fuzz.in_limits("no such kind", [3, 4], 0)
    assert outcome["cases"] == 0 and "died" in outcome["wrong"][0]


def test_the_page_adds_up_and_names_what_went_wrong(benchmark_module: Modules) -> None:
    fuzz = benchmark_module("fuzz")
    part = {"cases": 3, "outcomes": {"refused": 2, "sound": 1}, "wrong": [], "longest_seconds": 0.5, "memory_mb": 90.0}
    merged = fuzz.together([part, part | {"wrong": ["case 7: TypeError: x"], "longest_seconds": 2.0}])
    assert (merged["cases"], merged["outcomes"], merged["longest_seconds"]) == (6, {"refused": 4, "sound": 2}, 2.0)
    page = fuzz.page({"masks": merged | {"per_second": 1234.5}}, "make bench-fuzz", 0.5)
    assert "| masks | 6 | 1,234 | 4 refused, 2 sound | 1 | 2.0 s | 90 MB |" in page
    assert "- masks, case 7: TypeError: x" in page
