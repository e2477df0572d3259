"""The first cases of `benchmarks/fuzz_formats.py`, which runs 100,000 of each kind."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from segloop.randomness import generator

Modules = Callable[[str], ModuleType]


@pytest.mark.parametrize(("kind", "count"), [("masks", 300), ("json", 200), ("images", 200)])
def test_damaged_input_is_refused_or_sound(benchmark_module: Modules, tmp_path: Path, kind: str, count: int) -> None:
    case = benchmark_module("fuzz_formats").CASES[kind](tmp_path)
    outcomes = Counter(case(generator("fuzz", kind, 0, number)) for number in range(count))
    assert outcomes["refused"] > count / 10
    assert outcomes.total() - outcomes["refused"] > 3


def test_the_page_adds_up_and_names_what_went_wrong(benchmark_module: Modules) -> None:
    fuzz = benchmark_module("fuzz_formats")
    part = {"cases": 3, "outcomes": {"refused": 2, "sound": 1}, "wrong": [], "longest_seconds": 0.5, "memory_mb": 90.0}
    merged = fuzz.together([part, part | {"wrong": ["case 7: TypeError: x"], "longest_seconds": 2.0}])
    assert (merged["cases"], merged["outcomes"], merged["longest_seconds"]) == (6, {"refused": 4, "sound": 2}, 2.0)
    page = fuzz.page({"masks": merged})
    assert "| masks | 6 | 4 refused, 2 sound | 1 | 2.0 s | 90 MB |" in page
    assert "- case 7: TypeError: x" in page
