"""Load: 32 annotators for ten minutes, prediction and clustering in little memory, a pool of 100,000 shards.

Usage: python benchmarks/load.py [--parts people memory shards] [--annotators 32] [--minutes 10] [--shards 100000]

Writes docs/benchmarks/load.{md,json}; a part that is not measured now stays as it was.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import load_memory
import load_people
import load_shards
from common import OUTPUT, heading, publish
from segloop.files import read_json

PARTS: dict[str, Any] = {"people": load_people, "memory": load_memory, "shards": load_shards}


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--annotators", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where files lie meanwhile (default: a temporary folder)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the page and the record go")
    options = parser.parse_args()
    for part in options.parts:
        before = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = PARTS[part].measure(Path(folder), options)
        found |= {"load_average_before": before, "load_average": round(os.getloadavg()[0], 1)}
        # After each part, so that a run that is cut off leaves what it has done.
        keep(options.output, part, found)


def keep(folder: Path, part: str, found: dict[str, Any]) -> None:
    """Write the page with what was measured of one part; the others stay as they are."""
    known = folder / "load.json"
    earlier = read_json(known) if known.exists() else {}
    record: dict[str, Any] = {one: earlier[one] for one in PARTS if one in earlier} | {part: found}
    page = heading("Load", "make bench-load", "numpy", "starlette", "uvicorn", "zarr")
    for one, module in PARTS.items():
        page += module.lines(record[one]) if one in record else []
    publish("load", page, record, folder)


if __name__ == "__main__":
    main()
