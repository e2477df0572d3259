"""The profiles that are delivered: explained line by line, and complete."""

import re
from pathlib import Path

import pytest
import yaml


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_every_line_is_explained(repository: Path, name: str) -> None:
    lines = (repository / "profiles" / name / "config.yaml").read_text().splitlines()
    assert [line for line in lines if line.strip() and "#" not in line] == []


def test_the_short_name_finds_the_profile(repository: Path) -> None:
    """Snakemake looks for `--profile slurm` in the current directory."""
    assert (repository / "slurm").is_symlink()
    assert (repository / "slurm").resolve() == repository / "profiles" / "slurm"
    assert not (repository / "profiles" / "default").exists(), "Snakemake would let it override every other profile"


def test_every_rule_that_asks_for_a_gpu_gets_a_partition_with_gpus(repository: Path) -> None:
    text = "".join(path.read_text() for path in sorted((repository / "rules").glob("*.smk")))
    rules = re.split(r"^ *(?:rule|checkpoint) (\w+):$", text, flags=re.MULTILINE)
    asking = {name for name, body in zip(rules[1::2], rules[2::2], strict=True) if "gpu=" in body}
    asking |= {new for old, new in re.findall(r"use rule (\w+) as (\w+) with:", text) if old in asking}
    profile = yaml.safe_load((repository / "profiles" / "slurm" / "config.yaml").read_text())
    assert "predict_shard" in asking
    assert asking == set(profile["set-resources"])
    assert {tuple(values) for values in profile["set-resources"].values()} == {("slurm_partition",)}
