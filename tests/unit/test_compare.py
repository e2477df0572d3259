import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr

from segloop.compare import differences
from segloop.errors import SegloopError


def write_run(folder: Path) -> Path:
    """Write one file of every kind that a run holds."""
    results = folder / "results/iter_1"
    (results / "model").mkdir(parents=True)
    (folder / "resources/pool").mkdir(parents=True)
    write_json(results / "summary.json", {"ap": 0.25, "seconds": 3.0, "row": [{"time": 1, "x": [1, 2]}], "n": None})
    write_json(folder / "resources/pool/manifest.json", {"images": 5})
    write_table(results / "answers.parquet")
    write_zarr(results / "index.zarr")
    write_weights(results / "model/weights.pt")
    (results / "model/losses.csv").write_text("step,loss\n1,0.5\n")
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def write_table(path: Path, metadata: str = "0.8", **columns: object) -> None:
    values = {"prediction": [1, 2], "iou": [0.5, None], "seconds": [1.0, 2.0]} | columns
    pq.write_table(pa.table(values).replace_schema_metadata({"t_iou": metadata}), path)


def write_zarr(path: Path, attributes: dict | None = None, **arrays: np.ndarray) -> None:
    group = zarr.create_group(path, zarr_format=3, overwrite=True)
    for name, array in ({"score": np.array([0.5, np.nan, 0.0])} | arrays).items():
        group.create_array(name, data=array)
    group.attrs.put({"rows": 3, "versions": {"zarr": "1"}} | (attributes or {}))


def write_weights(path: Path, **tensors: torch.Tensor) -> None:
    torch.save({"w": torch.tensor([1.0, float("nan")]), "n": torch.tensor(3)} | tensors, path)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "a"), write_run(tmp_path / "b")


def test_equal_runs(runs):
    assert differences(*runs) == []


def test_what_was_measured_or_recorded_may_differ(runs):
    results = runs[1] / "results"
    measured = {
        "ap": 0.25,
        "seconds": 9.0,
        "row": [{"time": 7, "x": [1, 2]}],
        "n": None,
        "versions": {},
        "gpu_hours": 1,
        "cpu_hours": 2,
        "machine": {"dollars": 3},
        "machine_dollars": 3,
        "total_dollars": 4,
    }
    write_json(results / "iter_1/summary.json", measured)
    write_table(results / "iter_1/answers.parquet", seconds=[5.0, 6.0])
    write_zarr(results / "iter_1/index.zarr", {"versions": {"zarr": "2"}})
    for name in ("run.json", "config.yaml", "requirements.lock", "train.tsv", "job.log"):
        (results / name).write_text(name)
    (results / "figures").mkdir()
    (results / "figures/ap.svg").write_text("<svg/>")
    (runs[1] / "logs").mkdir()
    (runs[1] / "logs/x.json").write_text("{}")
    (results / ".index.zarr.tmp-1").mkdir()
    assert differences(*runs) == []


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"ap": 0.26, "row": [{"x": [1, 2]}], "n": None}, "ap is 0.25 and 0.26"),
        ({"ap": 0.25, "row": [{"x": [1, 3]}], "n": None}, "row[0].x[1] is 2 and 3"),
        ({"ap": 0.25, "row": [{"x": [1]}], "n": None}, "row[0].x has 2 and 1 entries"),
        ({"ap": 0.25, "row": [], "n": None}, "row has 1 and 0 entries"),
        ({"ap": 0.25, "row": [{"x": [1, 2.0]}], "n": None}, "row[0].x[1] is 2 and 2.0"),
        ({"ap": 0.25, "row": [{"x": [1, 2]}]}, "n is in one of the two only"),
        ({"ap": 0.25, "row": [{"x": [1, 2]}], "n": False}, "n is null and false"),
    ],
)
def test_json_is_compared_by_value(runs, value, line):
    write_json(runs[1] / "results/iter_1/summary.json", value)
    assert differences(*runs) == [f"results/iter_1/summary.json: {line}"]


def test_of_many_differences_the_first_are_shown(runs):
    for run, start in zip(runs, (0, 100), strict=True):
        write_json(run / "results/iter_1/summary.json", list(range(start, start + 50)))
    lines = differences(*runs)
    assert len(lines) == 6
    assert lines[-1].endswith("and more")


def test_files_of_one_run_only(runs):
    (runs[0] / "results/iter_1/model/losses.csv").unlink()
    (runs[1] / "results/iter_1/tree.zarr").mkdir()
    assert differences(*runs) == [
        f"results/iter_1/model/losses.csv: only in {runs[1]}",
        f"results/iter_1/tree.zarr: only in {runs[1]}",
    ]


def test_other_files_are_compared_by_bytes(runs):
    (runs[1] / "results/iter_1/model/losses.csv").write_text("step,loss\n1,0.6\n")
    assert differences(*runs) == ["results/iter_1/model/losses.csv: the bytes differ"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"iou": [0.5, 0.0]}, "column iou differs"),
        ({"iou": [-0.5, None]}, "column iou differs"),
        ({"prediction": [1, 3]}, "column prediction differs"),
        ({"more": [1, 2]}, "the columns, or what the file says about them, differ"),
        ({"metadata": "0.9"}, "the columns, or what the file says about them, differ"),
        ({"prediction": [1], "iou": [0.5], "seconds": [1.0]}, "2 and 1 rows"),
    ],
)
def test_tables_are_compared_by_column(runs, change, line):
    write_table(runs[1] / "results/iter_1/answers.parquet", **change)
    assert differences(*runs) == [f"results/iter_1/answers.parquet: {line}"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"score": np.array([0.5, np.nan, -0.0])}, "score/c/0: the bytes differ"),
        ({"score": np.array([0.5, np.nan, 0.0, 0.0])}, "score/zarr.json: shape[0] is 3 and 4"),
        ({"score": np.array([0.5, np.nan, 0.0], np.float32)}, 'score/zarr.json: data_type is "float64" and "float32"'),
        ({"more": np.ones(2)}, "more/c/0 is in one of the two only"),
        ({"attributes": {"rows": 4}}, "zarr.json: attributes.rows is 3 and 4"),
    ],
)
def test_stores_are_compared_bit_by_bit(runs, change, line):
    write_zarr(runs[1] / "results/iter_1/index.zarr", **change)
    assert f"results/iter_1/index.zarr: {line}" in differences(*runs)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"n": torch.tensor(4)}, "tensor n: the values differ"),
        ({"w": torch.tensor([1.0, 2.0])}, "tensor w: the values differ"),
        ({"w": torch.tensor([1.0])}, "tensor w: torch.float32 [2] and torch.float32 [1]"),
        ({"m": torch.tensor([])}, "tensor m is in one of the two only"),
    ],
)
def test_weights_are_compared_by_tensor(runs, change, line):
    write_weights(runs[1] / "results/iter_1/model/weights.pt", **change)
    assert differences(*runs) == [f"results/iter_1/model/weights.pt: {line}"]


def test_what_cannot_be_compared_is_named(runs, tmp_path):
    (runs[1] / "results/iter_1/answers.parquet").write_bytes(b"broken")
    with pytest.raises(SegloopError, match=r"results/iter_1/answers\.parquet cannot be compared"):
        differences(*runs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegloopError, match="holds no results"):
        differences(runs[0], tmp_path / "empty")


def test_the_time_stamp_snakemake_leaves_in_a_folder_is_no_difference(runs):
    (runs[0] / "results/iter_1/index.zarr/.snakemake_timestamp").touch()
    assert differences(*runs) == []
