"""A fixed sample of faults; `make bench-faults` injects hundreds of them."""

import shutil
from pathlib import Path

import pytest

from ..loops import Loop
from .harness import make_answered
from .kinds import FAULTS, SERVERS, run_fault

pytestmark = pytest.mark.workflow

PLAN = (
    ("kill job", "train_detector", 1),
    ("kill job", "annotate_oracle", 2),
    ("kill at a write", "predict_shard", 3),
    ("kill at a write", "index_predictions", 4),
    ("kill at a write", "join_trees", 5),
    ("kill at a write", "annotate_people", 6),
    ("kill in a checkpoint", "train_detector", 7),
    ("kill Snakemake", "collect_masks", 8),
    ("kill Snakemake", "annotate_people", 9),
    ("kill all", "reduce_embeddings", 10),
    ("lose a worker", "link_partitions", 11),
    ("second Snakemake", "merge_training_set", 12),
    ("disk full", "partition_predictions", 13),
    ("read only", "collect_masks", 14),
    ("bad image", "predict_shard", 15),
    ("clock jump", "annotate_people", 16),
    ("flipped bit", "link_partitions", 17),
    ("flipped bit", "merge_training_set", 18),
    ("flipped bit", "evaluate_detector", 19),
    ("cut file", "summarise_iteration", 20),
    ("zeros", "reduce_embeddings", 21),
    ("lost file", "join_trees", 22),
    ("damaged answers", "annotate_people", 23),
)


@pytest.fixture(scope="module")
def answered(undisturbed: Loop, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    return make_answered(undisturbed, tmp_path_factory.mktemp("answered"))


@pytest.mark.parametrize(("name", "rule", "seed"), PLAN, ids=lambda value: str(value).replace(" ", "-"))
def test_a_fault(undisturbed: Loop, answered: Loop, tmp_path: Path, name: str, rule: str, seed: int) -> None:
    if reason := FAULTS[name].without():
        pytest.skip(reason)
    outcome = run_fault(name, rule, seed, undisturbed, answered, tmp_path)
    assert outcome.wrong == []
    assert outcome.hit, "the fault never happened"
    # A copy of a whole run: kept only where there is something to look at.
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("seed", range(2))
def test_a_fault_of_the_server(tmp_path: Path, name: str, seed: int) -> None:
    if reason := SERVERS[name].without():
        pytest.skip(reason)
    outcome = SERVERS[name].attack(seed, tmp_path)
    assert outcome.wrong == []
    assert outcome.hit
