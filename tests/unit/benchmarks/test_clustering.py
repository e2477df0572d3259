from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from segloop.store.index import read_index_columns
from segloop.store.tree import read_tree

Modules = Callable[[str], ModuleType]

EXACT = {"scope": "category", "n_exact": 1000, "m_max": 1000, "threads": 1}


@pytest.fixture
def data(benchmark_module: Modules, tmp_path: Path) -> Any:
    return benchmark_module("clustering_data").write_dataset(tmp_path / "data", 150, 16, 0)


def test_more_rows_extend_fewer(benchmark_module: Modules, tmp_path: Path, data: Any) -> None:
    larger = benchmark_module("clustering_data").write_dataset(tmp_path / "larger", 170, 16, 0)
    rows = data.embeddings()
    assert rows.shape == (150, 16) and rows.dtype == np.float32
    assert rows.min() == 0 and rows.any(axis=1).all()
    assert np.array_equal(larger.embeddings()[:150], rows)


def test_no_two_predictions_pass_as_copies(data: Any) -> None:
    (key,) = read_index_columns(data.index, "mask_key")
    assert len(np.unique(key, axis=0)) == 150


def test_reading_every_byte_counts_every_byte(data: Any) -> None:
    files = [path for path in (data.folder / "predictions").rglob("*") if path.is_file()]
    assert data.read_bytes() == sum(path.stat().st_size for path in files) > 150 * 16 * 2


@pytest.mark.parametrize("method", ["fastcluster, vectors", "fastcluster, distances", "scipy, distances"])
def test_methods_build_the_same_tree(benchmark_module: Modules, tmp_path: Path, data: Any, method: str) -> None:
    methods = benchmark_module("clustering_methods")
    for name in ("segloop", method):
        methods.METHODS[name](methods.Task(data, tmp_path, EXACT))()
    own = np.sort(read_tree(tmp_path / "tree.zarr").height)
    assert np.allclose(np.sort(np.load(tmp_path / "heights.npy")), own, atol=1e-5)
    assert own[-1] > own[0] > 0


def test_a_run_is_measured_in_its_own_process(benchmark_module: Modules, tmp_path: Path, data: Any) -> None:
    methods = benchmark_module("clustering_methods")
    run = methods.measure("segloop", data, tmp_path, limit=60, threads=1, clustering=EXACT)
    assert 0 < run["seconds"] < 60
    assert run["base_mb"] > 10 and run["peak_mb"] > 0
    assert run["total_mb"] == pytest.approx(run["base_mb"] + run["peak_mb"])
    assert read_tree(tmp_path / "tree.zarr").n == 150


def test_what_takes_too_long_is_stopped(benchmark_module: Modules, tmp_path: Path, data: Any) -> None:
    methods = benchmark_module("clustering_methods")
    found = methods.measure("segloop", data, tmp_path, limit=0, threads=1, clustering=EXACT)
    assert found == methods.Stopped("over 0 s")
    assert not (tmp_path / "tree.zarr").exists()


def test_what_fails_says_why(benchmark_module: Modules, tmp_path: Path, data: Any) -> None:
    methods = benchmark_module("clustering_methods")
    found = methods.measure("segloop", data, tmp_path, limit=60, threads=1, clustering={"m_max": 0})
    assert found.reason.startswith("failed: ")


def test_stages_add_up_and_functions_come_back(benchmark_module: Modules, tmp_path: Path, data: Any) -> None:
    import segloop.clustering.linkage as linkage
    from segloop.store.partitions import Partitions

    methods, profile = benchmark_module("clustering_methods"), benchmark_module("clustering_profile")
    before = linkage.partition_tree, Partitions.embeddings
    run = methods.OTHERS["segloop, profiled"](methods.Task(data, tmp_path, EXACT))
    stages = run()["stages"]
    assert list(stages) == list(profile.STAGES)
    assert stages[profile.PRODUCTS] > 0 and stages[profile.READING] > 0 and stages["writing the tree"] > 0
    assert stages["k-means: learning"] == 0
    assert (linkage.partition_tree, Partitions.embeddings) == before


def test_a_stage_is_charged_without_the_stages_it_calls(benchmark_module: Modules) -> None:
    clock_of = benchmark_module("clustering_profile")._Clock
    seconds = {"outer": 0.0, "inner": 0.0}
    clock = clock_of(seconds)
    now = iter([0.0, 1.0, 3.0, 7.0])
    clock_module = benchmark_module("clustering_profile").time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "perf_counter", lambda: next(now))
        inner = clock.timed("inner", lambda: None)
        clock.timed("outer", inner)()
    assert seconds == {"outer": 5.0, "inner": 2.0}


def test_a_function_that_is_gone_is_named(benchmark_module: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = benchmark_module("clustering_profile")
    monkeypatch.setitem(profile.STAGES, "linkage core", ["segloop.clustering.linkage:no_such_function"])
    with pytest.raises(LookupError, match="no_such_function does not exist"), profile.timers():
        pass


def test_the_floor_covers_every_partition(benchmark_module: Modules, data: Any) -> None:
    found = benchmark_module("clustering_profile").floor(data, [1, 40, 700], 16)
    assert found["bytes"] == data.read_bytes()
    assert found["product_seconds"] > 0


# --- task loss --------------------------------------------------------------------------------------------------------


def _task_runs(two_level: list[float]) -> dict[str, Any]:
    """Three seeds of the exact tree with 1, 2 and 3 masks a question, drawn twice, 0.1 below and above that."""
    rows = []
    for tree, values in (("exact", [1.0, 2.0, 3.0]), ("two-level", two_level)):
        for seed, value in enumerate(values):
            for draw, luck in enumerate((-0.1, 0.1)):
                metrics = {"masks_per_question": value + luck, "precision": 0.9, "recall": 0.8}
                place = {"level": "D", "start": "top:60", "seed": seed, "tree": tree, "draw": draw}
                rows.append({**place, **metrics, "seconds": 1.0, "partitions": 4, "node": 50.0})
    return {"n": 10, "levels": "D", "seeds": 3, "draws": 2, "runs": rows}


@pytest.mark.parametrize(
    ("two_level", "verdict"), [([1.0, 1.1, 1.2], "within"), ([0.9, 0.9, 1.1], "below"), ([3.0, 3.0, 4.0], "above")]
)
def test_the_verdict_is_the_mean_beside_the_spread(
    benchmark_module: Modules, two_level: list[float], verdict: str
) -> None:
    exact, other = benchmark_module("clustering_task").compare(_task_runs(two_level))
    assert exact["verdict"] == "within"
    assert other["verdict"] == verdict
    assert other["masks_per_question"]["difference"] == pytest.approx(np.mean(two_level) - 2)


def test_asking_over_a_tree_counts_questions(benchmark_module: Modules) -> None:
    task = benchmark_module("clustering_task")
    found = task.measure(600, "E", 1, 2)
    assert len(found["runs"]) == len(task.trees(600)) * len(task.STARTS) * 2
    assert len({run["questions"] for run in found["runs"]}) > len(task.trees(600)), "draws must differ"
    for run in found["runs"]:
        assert 0 < run["questions"] <= 600
        assert 0.5 < run["precision"] <= 1
        assert run["questions"] * run["masks_per_question"] * run["precision"] > 0 < run["recall"] <= 1


# --- the page ---------------------------------------------------------------------------------------------------------


def _record(seconds: float, peak_mb: float = 1600.0, hashes: tuple[str, str] = ("a", "a")) -> dict[str, Any]:
    def run(method: str, n: int, seconds: float) -> dict[str, Any]:
        shared = {"n": n, "dim": 1024, "seconds": seconds, "peak_mb": peak_mb}
        return {"part": "comparison", "method": method, **shared, "height_difference": 1e-7}

    runs = [run("segloop", 8000, value) for value in (seconds, 9.0, seconds / 2)]
    runs += [run("segloop", 20_000, 6 * seconds), run("fastcluster, vectors", 8000, 20.0)]
    for n, time in ((100_000, 30.0), (1_000_000, 330.0)):
        for name in hashes:
            large = {"total_mb": 3000.0, "tree_mb": 40.0, "embeddings_mb": 1.0, "partitions": 9, "largest": 7}
            shared = {"n": n, "dim": 1024, "seconds": time, "peak_mb": 2900.0, "tree_sha256": name * 64}
            runs.append({"part": "large", "method": "segloop, two-level", **shared, **large})
    comparison = {"dim": 1024, "threads": 2, "limit": 180.0, "repeats": 3, "repeat_below": 30.0, "arguments": "--x 1"}
    return {
        "runs": runs,
        "stopped": [{"method": "genieclust", "n": 8000, "reason": "over 180 s"}],
        "compared_with": {"genieclust": "1.3.0"},
        "comparison": comparison,
        "large": {"dim": 1024, "m_max": 8000, "threads": 1, "workers": 2, "arguments": ""},
        "task": _task_runs([0.1, 0.1, 0.1]),
    }


def _met(page: ModuleType, record: dict[str, Any]) -> dict[str, bool]:
    return {wanted: met for wanted, _, met in page.targets(record)}


def test_targets_are_judged_by_what_was_measured(benchmark_module: Modules) -> None:
    page = benchmark_module("clustering_page")
    good = _met(page, _record(2.4))
    assert [wanted for wanted, met in good.items() if not met] == [
        "task loss within the spread of the exact tree's seeds: level D, top:60, two-level"
    ]
    bad = _met(page, _record(2.6, peak_mb=2001.0, hashes=("a", "b")))
    assert not bad["exact tree, N = 8,000: at most 2.5 s"]
    assert not bad["at least 8 times faster than fastcluster, vectors"]
    assert not bad["exact tree, N = 20,000: at most 15 s"]
    assert not bad["peak above the interpreter: at most 5 N² bytes"]
    assert not bad["reruns byte-identical, N = 1,000,000"]
    assert bad["time from 100,000 to 1,000,000: at most 12 times"]


def test_the_page_holds_what_was_measured_and_draws_it(benchmark_module: Modules, tmp_path: Path) -> None:
    page = benchmark_module("clustering_page")
    text = "\n".join(page.page(_record(2.4)))
    assert "| segloop | 2.40 (1.20) | 14.4 |" in text
    assert "| fastcluster, vectors | 20.0 |  |" in text
    assert "genieclust at 8,000: over 180 s" in text
    assert "Part `comparison` was measured with `--x 1`." in text
    assert "**no**" in text
    page.draw(_record(2.4), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_makes_a_page_without_tables(benchmark_module: Modules, tmp_path: Path) -> None:
    page = benchmark_module("clustering_page")
    record: dict[str, Any] = {"runs": [], "stopped": [], "compared_with": {"genieclust": "1.3.0"}}
    assert not any(line.startswith("|") for line in page.page(record))
    page.draw(record, tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()
