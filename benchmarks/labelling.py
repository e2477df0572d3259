"""LabelMeLite measured: the server under load, killed and started again; tasks of the loop; the pages in a browser.

Writes docs/benchmarks/labelling.{md,json}.

Usage: python benchmarks/labelling.py [--annotators 32] [--seconds 10] [--parts server tasks browser]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import labelling_browser
import labelling_server
import labelling_tasks
from common import OUTPUT, heading, publish
from segloop.files import read_json

PARTS: dict[str, Any] = {"server": labelling_server, "tasks": labelling_tasks, "browser": labelling_browser}


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotators", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before the kill")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where the databases lie (default: a temporary folder)")
    options = parser.parse_args()
    # A part that is not measured now stays as it was.
    earlier = read_json(OUTPUT / "labelling.json") if (OUTPUT / "labelling.json").exists() else {}
    record: dict[str, Any] = {part: earlier[part] for part in PARTS if part in earlier}
    if "server" in options.parts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            record["server"] = labelling_server.measure(Path(folder), options.annotators, options.seconds)
    if "tasks" in options.parts:
        record["tasks"] = labelling_tasks.measure()
    if "browser" in options.parts:
        record["browser"] = labelling_browser.measure()
    page = heading("LabelMeLite", "make bench-labelling", "pycocotools")
    for part, module in PARTS.items():
        page += module.lines(record[part]) if part in record else []
    publish("labelling", page, record)


if __name__ == "__main__":
    main()
