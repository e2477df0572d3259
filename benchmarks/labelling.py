"""LabelMeLite measured: the server under load, killed and started again; the pages in a browser.

Writes docs/benchmarks/labelling.{md,json}.

Usage: python benchmarks/labelling.py [--annotators 32] [--seconds 10] [--parts server browser]
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
    parser.add_argument("--parts", nargs="+", choices=("server", "browser"), default=["server", "browser"])
    parser.add_argument("--folder", type=Path, help="where the databases lie (default: a temporary folder)")
    options = parser.parse_args()
    record: dict[str, Any] = {}
    parts: list[str] = []
    if "server" in options.parts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            record["server"] = [
                labelling_server.one_load(Path(folder) / kind, kind, options.annotators, options.seconds)
                for kind in ("answers", "changes")
            ]
        parts += labelling_server.lines(record["server"])
    if "browser" in options.parts:
        import labelling_browser

        record["browser"] = labelling_browser.measure()
        parts += labelling_browser.lines(record["browser"])
    record["load_average"] = os.getloadavg()[0]
    page = heading("LabelMeLite", "make bench-labelling", "pycocotools")
    page += [f"Load average of the machine at the end: {record['load_average']:.1f}.", ""]
    publish("labelling", [*page, *parts], record)


if __name__ == "__main__":
    main()
