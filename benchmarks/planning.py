"""What a run costs before any work is done: how long Snakemake plans, and the start of each entry script.

Usage: python benchmarks/planning.py
"""

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from common import PROFILE, REPOSITORY, heading, publish

CASES = [("nuclei", 4, 1), ("nuclei", 2_000, 2), ("nuclei", 10_000, 1), ("ade20k_places", 800, 6)]
"""Configuration, shards, iterations. The last one is all of Places: 8 million images, 10,000 a shard."""
IMPORTS = ("import numpy", "import torch, torchvision")
REPEATS = 5


def main() -> None:
    """Time everything and write docs/benchmarks/planning.{md,json}."""
    plans = [plan(*case) for case in CASES]
    local = local_rules()
    lines = heading("Planning", "make bench-planning", "snakemake", "torch")
    lines += ["`snakemake -n -q rules` in a fresh run directory, the start of the interpreter included.", ""]
    lines += ["| configuration | shards | iterations | jobs | seconds | CPU seconds |", "|---|---|---|---|---|---|"]
    for row in plans:
        shown = f"`{row['configuration']}` | {row['shards']:,} | {row['iterations']} | {row['jobs']:,}"
        lines.append(f"| {shown} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} |")
    lines += ["", "## All of Places: which jobs", "", *table_of_jobs(plans[-1]["rules"], local)]
    starts = start_seconds()
    lines += ["", "## Start of an entry script", ""]
    lines += [f"CPU seconds of the interpreter until its work would begin, least of {REPEATS}.", ""]
    lines += ["| script | CPU seconds |", "|---|---|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in starts.items()]
    publish("planning", lines, {"rows": plans, "local_rules": sorted(local), "start_cpu_seconds": starts})


def plan(configuration: str, shards: int, iterations: int) -> dict[str, Any]:
    """Return the jobs and the seconds of one dry run, interpreter start included; people have answered everything."""
    with tempfile.TemporaryDirectory() as folder:
        command = dry_run(Path(folder), configuration, shards, iterations)
        begin, before = time.monotonic(), cpu_of_children()
        output = said(*command, "-q", "rules")
        seconds, cpu_seconds = time.monotonic() - begin, cpu_of_children() - before
    rules = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE)}
    return {
        "configuration": configuration,
        "shards": shards,
        "iterations": iterations,
        "jobs": rules.pop("total"),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rules": rules,
    }


def dry_run(folder: Path, configuration: str, shards: int, iterations: int) -> list[str]:
    """Return the command of a dry run in a new run directory."""
    values = yaml.safe_load((REPOSITORY / "config" / f"{configuration}.yaml").read_text())
    values["pool"] |= {"shards": shards, "sample": None}
    values["loop"] |= {"iterations": iterations, "stop": "never"}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    for iteration in range(1, iterations + 1):
        answers = folder / "run" / "data" / "answers" / f"iter_{iteration}"
        answers.mkdir(parents=True)
        for name in ("answers.jsonl", "complete.json"):
            (answers / name).touch()
    command = [sys.executable, "-m", "snakemake", "-n", "--profile", PROFILE]
    return [*command, "--configfile", str(folder / "config.yaml"), "--directory", str(folder / "run")]


def said(*command: str) -> str:
    """Return what a command printed."""
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return answer.stdout + answer.stderr


def local_rules() -> set[str]:
    """Return the rules that run beside Snakemake."""
    texts = [path.read_text() for path in (REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk"))]
    blocks = [
        block for text in texts for block in re.findall(r"^localrules:\n((?: +\w+,\n)+)", text, flags=re.MULTILINE)
    ]
    return {name for block in blocks for name in re.findall(r"\w+", block)}


def table_of_jobs(rules: dict[str, int], local: set[str]) -> list[str]:
    """Return a table of the jobs of each rule, and where they run."""
    submitted = sum(count for name, count in rules.items() if name not in local)
    rows = [
        f"| `{name}` | {count:,} | {'beside Snakemake' if name in local else 'SLURM'} |"
        for name, count in rules.items()
    ]
    total = f"| all | {sum(rules.values()):,} | {submitted:,} of them on SLURM |"
    return ["| rule | jobs | where |", "|---|---|---|", *sorted(rows), total]


def start_seconds() -> dict[str, float]:
    """Return the CPU seconds until each entry script could begin, and those of what the slowest ones import."""
    scripts = sorted((REPOSITORY / "scripts").glob("*.py"))
    programs = {f"`{program}` alone": program for program in IMPORTS}
    programs |= {path.name: f"import runpy; runpy.run_path({str(path)!r})" for path in scripts}
    # In turn, so that a busy minute of the machine does not fall on one of them alone.
    rounds = [{name: start(program) for name, program in programs.items()} for _ in range(REPEATS)]
    return {name: min(one[name] for one in rounds) for name in programs}


def start(program: str) -> float:
    """Return the CPU seconds of a Python program in a new process."""
    before = cpu_of_children()
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY / "scripts", check=True)
    return cpu_of_children() - before


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
