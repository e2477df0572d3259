"""What older iterations do not keep goes once nothing needs it, and nothing is made again because of that."""

from pathlib import Path

import pytest

from segloop.progress import STEPS, RunFiles
from segloop.store.partitions import Partitions
from segloop.store.predictions import PredictionShard

from ..loops import Loop, same_results

pytestmark = pytest.mark.workflow

STORES = ("results/iter_1/predictions", "results/iter_1/partitions.zarr", "results/iter_2/predictions")
NEW = ("results/iter_1/dropped_", "results/iter_2/dropped_", "results/config.yaml")


def test_older_iterations_lose_what_is_not_kept(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run", retention={"embeddings": 1, "low_scores": 0})
    loop.remove("results/iter_2", "results/summary.json")
    before = RunFiles(loop.directory).bytes_of(STEPS[0], 1)
    loop.run()
    assert same_results(undisturbed, loop, STORES + NEW) == []
    assert "Nothing to be done" in loop.run("-n")
    first, second = (
        PredictionShard.open(loop.directory / f"results/iter_{number}/predictions/0.zarr") for number in (1, 2)
    )
    assert not first.has_embeddings
    assert second.has_embeddings
    whole = PredictionShard.open(undisturbed.directory / "results/iter_2/predictions/0.zarr")
    high = (whole.score > 0.05).nonzero()[0]
    assert second.rles(high) == whole.rles(high)
    assert len(high)
    assert RunFiles(loop.directory).bytes_of(STEPS[0], 1) < before

    # The index reads masks of earlier iterations, which are still there.
    loop.remove("results/iter_2/index.zarr")
    loop.run("results/iter_2/index.zarr")
    assert same_results(undisturbed, loop, STORES + NEW) == []
    # Clustering iteration 1 anew needs what is gone, and says so.
    loop.remove("results/iter_1/partitions.zarr")
    assert "no longer holds embedding" in loop.run("results/iter_1/partitions.zarr", status=1)
    assert not (loop.directory / "results/iter_1/partitions.zarr").exists()


def test_all_is_kept_unless_the_configuration_says_otherwise(undisturbed: Loop) -> None:
    assert not list(undisturbed.directory.glob("results/*/dropped_*"))
    assert Partitions(undisturbed.directory / "results/iter_1/partitions.zarr").embeddings(0, 1).shape == (1, 32)
