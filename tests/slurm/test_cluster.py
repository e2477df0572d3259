"""The clusters that the other tests run on."""

import os
from pathlib import Path

import pytest

from .conftest import Cluster

pytestmark = pytest.mark.slurm


def test_a_job_runs_and_gets_its_gpu(slurm_cluster: Cluster) -> None:
    shown = slurm_cluster.run("srun", "--partition=gpu", "--gpus=1", "printenv", "CUDA_VISIBLE_DEVICES")
    assert shown.strip() in {"0", "1"}


def test_accounting_knows_the_user(slurm_cluster_with_accounting: Cluster) -> None:
    assert "test" in slurm_cluster_with_accounting.run("sacctmgr", "-n", "show", "associations", "format=account")
    slurm_cluster_with_accounting.run("sacct", "--noheader")


@pytest.mark.skipif(os.getuid() != 0, reason="hiding a folder from the nodes needs root")
def test_clusters_run_side_by_side(slurm_cluster: Cluster, tmp_path: Path) -> None:
    from .conftest import start_cluster, stop_cluster

    (tmp_path / "file").touch()
    other = start_cluster("--nodes", "1", "--gpus", "0", "--hide", str(tmp_path))
    try:
        assert other.run("srun", "ls", str(tmp_path)) == ""
        assert slurm_cluster.run("srun", "ls", str(tmp_path)) == "file\n"
    finally:
        stop_cluster(other)
