"""Plans: every configuration can be planned in a fresh clone, without its data."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..loops import Loop

pytestmark = pytest.mark.workflow


def _jobs(output: str) -> dict[str, int]:
    """Return the job counts of the last table Snakemake printed."""
    table = output.rpartition("Job stats:")[2]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def _plan(repository: Path, profile: str, config: str, directory: Path, *arguments: str) -> dict[str, int]:
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "rules", "--profile", profile, "--configfile", config]
    answer = subprocess.run(
        [*command, "--directory", str(directory), *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    return _jobs(answer.stdout + answer.stderr)


@pytest.mark.parametrize("profile", ["profiles/local", "slurm"])
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("demo", {"generate_demo_data": 1, "train_detector": 3, "predict_shard": 4, "annotate_oracle": 2}),
        ("nuclei", {"import_seed": 2, "train_detector": 2, "predict_shard": 4, "annotate_oracle": 1}),
        ("ade20k_places", {"import_seed": 2, "train_detector": 1, "summarise_iteration": 1}),
    ],
)
def test_every_configuration_is_planned_without_data(
    repository: Path, tmp_path: Path, profile: str, config: str, expected: dict[str, int]
) -> None:
    jobs = _plan(repository, profile, f"config/{config}.yaml", tmp_path / "run")
    assert {name: jobs.get(name) for name in expected} == expected


def test_a_single_iteration_by_name_needs_no_later_one(repository: Path, tmp_path: Path) -> None:
    jobs = _plan(repository, "profiles/local", "config/demo.yaml", tmp_path / "run", "results/iter_1/summary.json")
    assert jobs["train_detector"] == 2
    assert jobs["predict_shard"] == 2
    assert jobs["summarise_iteration"] == 1
    assert "summarise_run" not in jobs


def test_f_redoes_one_file_and_R_also_what_follows(undisturbed: "Loop", tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run")
    alone = _jobs(loop.run("-n", "-q", "rules", "-f", "results/iter_2/collected.json"))
    assert {name for name in alone if name != "total"} == {"collect_masks"}
    after = _jobs(loop.run("-n", "-q", "rules", "-R", "collect_masks"))
    assert after["collect_masks"] == 2
    assert after["train_detector"] == 2
    assert after["summarise_run"] == 1
    assert "generate_demo_data" not in after


def test_the_plan_grows_with_shards_and_iterations(new_loop: Callable[..., "Loop"]) -> None:
    loop = new_loop(pool={"shards": 50}, clustering={"batches": 3}, loop={"iterations": 3, "control": False})
    jobs = _jobs(loop.run("-n", "-q", "rules"))
    assert jobs["predict_shard"] == 150
    assert jobs["link_partitions"] == 9
    assert jobs["train_detector"] == 4
    assert "train_control" not in jobs
    assert jobs["train_upper_bound"] == 1


def test_an_unknown_key_is_refused_with_the_nearest_one(new_loop: Callable[..., "Loop"]) -> None:
    loop = new_loop(detector={"architekture": "tiny"})
    assert "did you mean detector.architecture?" in loop.run("-n", status=1)
