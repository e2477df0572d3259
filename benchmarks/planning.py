"""How long Snakemake plans: dry runs of the nuclei configuration with many shards, in a fresh run directory.

Usage: python benchmarks/planning.py
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from common import REPOSITORY, heading, publish

CASES = [(4, 1), (2_000, 2), (10_000, 1)]


def main() -> None:
    """Time the cases and write docs/benchmarks/planning.{md,json}."""
    rows = [plan(shards, iterations) for shards, iterations in CASES]
    lines = heading("Planning", "make bench-planning", "snakemake")
    lines += ["`snakemake -n -q rules` in a fresh run directory, the start of the interpreter included.", ""]
    lines += ["| shards | iterations | jobs | seconds |", "|---|---|---|---|"]
    lines += [f"| {row['shards']:,} | {row['iterations']} | {row['jobs']:,} | {row['seconds']:.1f} |" for row in rows]
    publish("planning", lines, {"rows": rows})


def plan(shards: int, iterations: int) -> dict[str, Any]:
    """Return jobs and seconds of one dry run, interpreter start included."""
    values = yaml.safe_load((REPOSITORY / "config" / "nuclei.yaml").read_text())
    values["pool"]["shards"] = shards
    values["loop"]["iterations"] = iterations
    with tempfile.TemporaryDirectory() as folder:
        configfile = Path(folder) / "config.yaml"
        configfile.write_text(yaml.safe_dump(values))
        command = [sys.executable, "-m", "snakemake", "-n", "-q", "rules", "--profile", "profiles/local"]
        command += ["--configfile", str(configfile), "--directory", str(Path(folder) / "run")]
        begin = time.monotonic()
        answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - begin
    total = next(line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("total "))
    return {"shards": shards, "iterations": iterations, "jobs": int(total.split()[1]), "seconds": seconds}


if __name__ == "__main__":
    main()
