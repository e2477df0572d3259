"""The tiny loop on SLURM, end to end: the bytes of a run without it."""

import base64
from pathlib import Path

import pytest

from ..loops import Loop, configuration, same_results
from .conftest import Cluster, ended, profile, segloop

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]

CONTROLS = ("results/control", "results/upper_bound", "results/summary.json")


def test_two_iterations(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    loop = Loop(
        tmp_path / "run",
        configuration(tmp_path / "tiny.yaml", loop={"iterations": 2, "control": False, "upper_bound": False}),
        profile(tmp_path / "profile"),
        slurm_cluster.env,
    )
    status, output = ended(segloop(loop, "run", "--every", "1", "results/iter_1/summary.json"), 900)
    assert status == 0, output[-6000:]
    # Which steps are seen depends on the machine: one may begin and end between two looks.
    assert "segloop: iteration 1 of 2: " in output
    assert not (loop.directory / "results/iter_2").exists()
    status, output = ended(segloop(loop, "status"))
    assert status == 0
    assert "iteration 2 of 2: predict 0 of 2" in output
    assert "nobody works in this directory" in output

    loop.run()
    assert same_results(undisturbed, loop, CONTROLS) == []
    assert slurm_cluster.jobs() == []
    assert attempts(loop.directory) == {1}
    assert_gpus_were_requested(loop, slurm_cluster)
    assert len(files_of_shard(loop.directory, 2, 0)) <= 40
    assert "Nothing to be done" in loop.run("-n")
    status, output = ended(segloop(loop, "status"))
    assert "finished after iteration 2" in output
    loop.run("--report", str(tmp_path / "report.html"))
    assert "questions, masks, average precision" in (tmp_path / "report.html").read_text()


def assert_gpus_were_requested(loop: Loop, cluster: Cluster) -> None:
    logs = list((loop.directory / "logs/slurm/rule_predict_shard").glob("2_*/*.log"))
    assert len(logs) == 2
    for log in logs:
        assert "gpu:1" in cluster.run("scontrol", "show", "job", log.stem)


def attempts(run: Path) -> set[int]:
    """Return how often jobs were started: SLURM writes a log for each time."""
    folders = {log.parent for log in (run / "logs" / "slurm").rglob("*.log")}
    return {len(list(folder.glob("*.log"))) for folder in folders}


def files_of_shard(run: Path, iteration: int, shard: int) -> list[Path]:
    """Return all files that one shard of one iteration leaves in the run directory, Snakemake's own included."""
    outputs = [f"results/iter_{iteration}/predictions/{shard}.{suffix}" for suffix in ("zarr", "skipped.json")]
    places = (
        *outputs,
        f"logs/predict_shard/{iteration}/{shard}.log",
        f"logs/slurm/rule_predict_shard/{iteration}_{shard}",
        f"benchmarks/predict_shard/{iteration}/{shard}.tsv",
        # Snakemake's record of an output has the output's name in Base64 for its own.
        *(f".snakemake/metadata/{base64.b64encode(output.encode()).decode()}" for output in outputs),
    )
    found = [run / place for place in places]
    assert [path for path in found if not path.exists()] == []
    return [file for path in found for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
