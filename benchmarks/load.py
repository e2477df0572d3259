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
    known = options.output / "load.json"
    earlier = read_json(known) if known.exists() else {}
    record: dict[str, Any] = {part: earlier[part] for part in PARTS if part in earlier}
    for part in options.parts:
        before = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            record[part] = PARTS[part].measure(Path(folder), options)
        record[part] |= {"load_average_before": before, "load_average": round(os.getloadavg()[0], 1)}
    page = heading("Load", "make bench-load", "numpy", "starlette", "uvicorn", "zarr")
    for part, module in PARTS.items():
        page += module.lines(record[part]) if part in record else []
    publish("load", page, record, options.output)


if __name__ == "__main__":
    main()
