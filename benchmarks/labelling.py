"""LabelMeLite measured: the server under load, killed and started again; the pages in a browser.

Writes docs/benchmarks/labelling.{md,json}.

Usage: python benchmarks/labelling.py [--annotators 32] [--seconds 10] [--folder DIR]
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import labelling_server
from common import heading, publish


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotators", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before the kill")
    parser.add_argument("--folder", type=Path, help="where the databases lie (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        records = [
            labelling_server.one_load(Path(folder) / kind, kind, options.annotators, options.seconds)
            for kind in ("answers", "changes")
        ]
    record: dict[str, Any] = {"load_average": os.getloadavg()[0], "server": records}
    page = heading("LabelMeLite", "make bench-labelling", "pycocotools")
    page += [f"Load average of the machine at the end: {record['load_average']:.1f}.", ""]
    publish("labelling", [*page, *labelling_server.lines(records)], record)


if __name__ == "__main__":
    main()
