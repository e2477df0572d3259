"""The tiny loop on SLURM, end to end: the bytes of a run without it."""

import base64
import re
from pathlib import Path

import pytest

from segloop.progress import STEPS

from ..loops import Loop, configuration, same_results
from .conftest import Cluster, ended, on_slurm, profile, segloop

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]

CONTROLS = ("results/control", "results/upper_bound", "results/summary.json")


def test_two_iterations(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    loop = Loop(
        tmp_path / "run",
        configuration(tmp_path / "tiny.yaml", loop={"iterations": 2, "control": False, "upper_bound": False}),
        profile(tmp_path / "profile"),
        slurm_cluster.env,
    )
    status, output = ended(segloop(loop, "run", "--every", "1"), 900)
    assert status == 0, output[-6000:]
    for iteration in (1, 2):
        assert_steps_were_shown(output, iteration)
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


def test_one_iteration(slurm_cluster: Cluster, undisturbed: Loop, tmp_path: Path) -> None:
    """What is asked for is made, and nothing of what would come after it."""
    loop = undisturbed.copy(tmp_path / "run")
    loop.remove("results/iter_1/ledger.json", "results/iter_1/summary.json", "results/iter_2", "results/summary.json")
    loop = on_slurm(loop, slurm_cluster)
    status, output = ended(segloop(loop, "run", "results/iter_1/summary.json"))
    assert status == 0, output[-6000:]
    assert same_results(undisturbed, loop, ("results/iter_2", "results/summary.json")) == []
    assert not (loop.directory / "results/iter_2").exists()
    assert {job.parent.parent.name for job in (loop.directory / "logs" / "slurm").rglob("*.log")} == {
        "rule_tally_iteration",
        "rule_summarise_iteration",
    }
    status, output = ended(segloop(loop, "status"))
    assert status == 0
    assert "iteration 2 of 2: predict 0 of 2" in output
    assert "nobody works in this directory" in output


def assert_steps_were_shown(output: str, iteration: int) -> None:
    """Progress names steps in their order; a short one may begin and end between two looks."""
    shown = re.findall(rf"^segloop: iteration {iteration} of 2: ([a-z ]+?)(?: \d+ of \d+|[,;]|$)", output, re.MULTILINE)
    seen = list(dict.fromkeys(shown))
    assert len(seen) >= 5, output[-6000:]
    assert seen == [step.name for step in STEPS if step.name in seen]


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
