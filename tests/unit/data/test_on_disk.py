"""Tables on disk behave as dictionaries and lists do, and take little memory."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloop.data.on_disk import DiskNumbers, DiskTable, NoRoomError, TemporaryDatabase

KEYS = st.integers(-(2**63), 2**63 - 1) | st.text()
VALUES = st.none() | st.integers() | st.text() | st.lists(st.integers(), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["set", "delete"]), KEYS, VALUES), max_size=60))
def test_a_table_is_a_dictionary(steps: list[tuple[str, Any, Any]]) -> None:
    table: DiskTable[Any, Any] = DiskTable()
    known: dict[Any, Any] = {}
    for what, key, value in steps:
        if what == "set":
            table[key] = known[key] = value
        elif key in known:
            del table[key], known[key]
        else:
            with pytest.raises(KeyError):
                del table[key]
    assert list(table.items()) == list(known.items())
    assert list(table) == list(known)
    assert list(table.values()) == list(known.values())
    assert len(table) == len(known)
    assert all(key in table and table[key] == table.get(key) == value for key, value in known.items())


def test_what_is_not_there() -> None:
    table: DiskTable[int, str] = DiskTable()
    assert table.get(7) is None and 7 not in table
    with pytest.raises(KeyError):
        table[7]


def test_names_with_halves_of_characters_are_kept() -> None:
    table: DiskTable[str, str] = DiskTable()
    table["a\udcff"] = "b\udcfe"
    assert list(table.items()) == [("a\udcff", "b\udcfe")]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=40))
def test_sorted_items_rise(keys: list[int]) -> None:
    table: DiskTable[int, int] = DiskTable()
    for key in keys:
        table[key] = -key
    assert list(table.sorted_items()) == [(key, -key) for key in sorted(keys)]


def test_a_table_may_change_while_it_is_gone_through() -> None:
    table: DiskTable[int, int] = DiskTable()
    for key in range(2000):
        table[key] = 0
    for key, value in table.items():
        assert value == 0
        if key % 2:
            del table[key]
        else:
            table[key] = 1
    assert list(table.items()) == [(key, 1) for key in range(0, 2000, 2)]


def test_two_tables_of_one_database() -> None:
    base = TemporaryDatabase()
    first: DiskTable[int, int] = DiskTable(base)
    second: DiskTable[int, int] = DiskTable(base)
    first[1] = 10
    assert 1 not in second and first[1] == 10


def test_a_statement_that_fails_says_what_to_do_and_so_do_all_after_it() -> None:
    base = TemporaryDatabase()
    table: DiskTable[int, int] = DiskTable(base)
    for fails in (base.run, base.all, base.first, lambda words: list(base.each(words))):
        with pytest.raises(NoRoomError, match="TMPDIR"):
            fails("SELECT * FROM nothing")
    with pytest.raises(NoRoomError, match=r"nothing.*TMPDIR"):
        table[1] = 1
    with pytest.raises(NoRoomError, match="TMPDIR"):
        TemporaryDatabase().run_many("INSERT INTO nothing VALUES (?)", [(1,)])


FULL = """
import resource, sys
from pathlib import Path
from segloop.data.coco_tables import ImageTable
from segloop.data.skipped import SkipReport
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
report = SkipReport(None, 1.0)
table = ImageTable(Path("set.json"), Path("images"), report)
try:
    for number in range(200_000):
        table.take({"id": number, "file_name": f"{number:0200}.jpg", "width": 9, "height": 9})
finally:
    print(len(report.skipped))
"""


def test_a_full_disk_is_no_fault_of_the_images() -> None:
    done = subprocess.run([sys.executable, "-c", FULL], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == "0\n"
    assert "NoRoomError: the temporary database failed" in done.stderr


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6)), min_size=1, max_size=80),
    st.lists(st.floats(0, 1), max_size=5),
)
def test_quantiles_are_numpys(pairs: list[tuple[int, float]], shares: list[float]) -> None:
    numbers = DiskNumbers()
    for kind, value in pairs:
        numbers.add(kind, value)
    assert len(numbers) == len(pairs)
    everything = np.array([value for _, value in pairs])
    np.testing.assert_allclose(numbers.quantiles(shares), np.quantile(everything, shares), rtol=1e-9, atol=1e-9)
    for kind in range(3):
        own = [value for other, value in pairs if other == kind]
        expected = np.quantile(own, shares) if own else []
        np.testing.assert_allclose(numbers.quantiles(shares, kind), expected, rtol=1e-9, atol=1e-9)


def test_numbers_may_come_after_a_question() -> None:
    numbers = DiskNumbers()
    numbers.add(0, 1.0)
    assert numbers.quantiles([0.5]) == [1.0]
    numbers.add(0, 3.0)
    assert numbers.quantiles([0.5]) == [2.0]


def peak(work: Callable[[], None]) -> int:
    """Return the most bytes that Python held while something ran."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow() -> None:
    def fill(count: int) -> None:
        table: DiskTable[int, list[str]] = DiskTable()
        for key in range(count):
            table[key] = ["some text"] * 3
        assert sum(1 for _ in table.values()) == count

    assert peak(lambda: fill(20_000)) < peak(lambda: fill(2000)) + 100_000
