"""Policies replayed on finished iterations: only where they are wanted, and then as part of the report."""

from pathlib import Path

import pytest

from segloop.files import read_json

from ..loops import Loop

pytestmark = pytest.mark.workflow


def test_nothing_is_replayed_unless_wanted(undisturbed: Loop) -> None:
    assert not list(undisturbed.directory.glob("results/iter_*/figures/cost_curves.svg"))


def test_policies_are_replayed_on_every_iteration(undisturbed: Loop, tmp_path: Path) -> None:
    loop = undisturbed.copy(tmp_path / "run", simulate={"policies": ["per_mask", "thesis"], "seeds": 2})
    output = loop.run()
    assert "annotate_oracle" not in output.rpartition("Job stats:")[2]
    for iteration in (1, 2):
        folder = loop.directory / "results" / f"iter_{iteration}" / "figures"
        runs = read_json(folder / "simulation.json")
        assert [(run["policy"], run["seed"]) for run in runs] == [
            ("per_mask", 0),
            ("per_mask", 1),
            ("thesis", 0),
            ("thesis", 1),
        ]
        assert runs[0]["world"] == f"iteration {iteration}" and runs[0]["recall"] in (1.0, None)
        assert "| thesis" in (folder / "simulation.md").read_text()
        assert (folder / "cost_curves.svg").stat().st_size > 5000
