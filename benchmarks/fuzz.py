"""Hostile input by the million: masks, data sets, pictures, configurations, answer logs, requests to the server.

Usage: python benchmarks/fuzz.py [--inputs N] [--kinds KIND ...] [--seed S] [--processes P]

Each input is a good one with bytes or values changed, cut, doubled or swapped. It is given to the code that takes such
input from outside: either that names what is wrong, or what it took is sound. The work is done in a process of limited
memory, so that a crash or an excess ends it and is reported with its case; a case that takes longer than a minute
counts as hanging. The tests call the same functions with fewer cases.
"""

import argparse
import logging
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from tqdm import tqdm

import fuzz_formats
import fuzz_requests
import fuzz_text
from common import OUTPUT, heading, publish
from segloop.files import read_json
from segloop.randomness import generator

SECONDS = 60
"""A case that takes longer hangs."""
MEGABYTES = 4096
"""Address space that a process may take; the libraries alone take some two thousand."""
CASES = {**fuzz_formats.CASES, **fuzz_text.CASES, **fuzz_requests.CASES}
SHARES = {
    "masks": 0.7,
    "json": 0.1,
    "images": 0.1,
    "configuration": 0.03,
    "logs": 0.025,
    "bundles": 0.025,
    "requests": 0.02,
}
"""Of all inputs: the cheaper a kind, the more of it."""
WHAT = {
    "masks": "run lengths with one to four pieces of bytes changed, or cut by empty runs",
    "json": "COCO files with bytes changed, or one value at any depth made odd",
    "images": "PNG and JPEG files with bytes changed, read as pictures and as maps of instances",
    "configuration": "some keys of a configuration as YAML, with bytes or values changed, aliases and odd tags",
    "logs": "lines of answers, edits and redraws, with bytes or values changed",
    "bundles": "answered bundles, gold masks, tables of names and pay lists, with bytes or values changed",
    "requests": "every route of the labelling server by every method, from owner, annotator, reader or nobody, with "
    "odd paths, queries, headers and bodies; no status of 500 and above, no change by who may not, headers of "
    "security on each response",
}


def main() -> None:
    """Run all kinds and write docs/benchmarks/fuzz.{md,json}."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in all; each kind gets its share")
    parser.add_argument("--kinds", nargs="+", choices=CASES, default=list(CASES), help="the others stay as they were")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the page and the record go")
    options = parser.parse_args()
    for kind in options.kinds:
        count = max(1, round(options.inputs * SHARES[kind]))
        found = measure(kind, count, options.seed, options.processes)
        # After each kind, so that a run that is cut off leaves what it has done.
        keep(options.output, kind, found)


def keep(folder: Path, kind: str, found: dict[str, Any]) -> None:
    """Write the page with the outcome of one kind; the others stay as they are."""
    known = folder / "fuzz.json"
    earlier = read_json(known)["kinds"] if known.exists() else {}
    merged = {**earlier, kind: found}
    record = {one: merged[one] for one in CASES if one in merged}
    load = os.getloadavg()[0]
    given = f" BENCH_ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else ""
    lines = page(record, f"make bench-fuzz{given}", load)
    publish("fuzz", lines, {"kinds": record, "load_average": load}, folder)


def measure(kind: str, count: int, seed: int, processes: int) -> dict[str, Any]:
    """Run the first cases of a kind, shared between processes, and return the outcome."""
    begun = time.monotonic()
    parts = np.array_split(np.arange(count), processes)
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(lambda part: in_limits(kind, part.tolist(), seed), parts))
    return together(found) | {"seed": seed, "per_second": round(count / (time.monotonic() - begun), 1)}


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the outcome of a kind from those of its parts."""
    counted = sum((Counter(part["outcomes"]) for part in parts), Counter())
    return {
        "cases": sum(part["cases"] for part in parts),
        "outcomes": dict(sorted(counted.items())),
        "wrong": [text for part in parts for text in part["wrong"]],
        "longest_seconds": max(part["longest_seconds"] for part in parts),
        "memory_mb": max(part["memory_mb"] for part in parts),
    }


def in_limits(kind: str, cases: list[int], seed: int) -> dict[str, Any]:
    """Run cases of one kind in a process of limited memory; that a process died counts as wrong, with its case."""
    context = multiprocessing.get_context("spawn")
    place = context.Value("q", -1)
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(kind, cases, seed, place, writer))
    process.start()
    writer.close()
    # A process that dies before it begins may leave the pipe open.
    ready = wait([reader, process.sentinel])
    try:
        outcome: dict[str, Any] | None = reader.recv() if reader in ready else None
    except EOFError:
        outcome = None
    if outcome is None:
        process.join()
        died = f"case {place.value}: the process died with exit status {process.exitcode}"
        done = cases.index(place.value) + 1 if place.value in cases else 0
        outcome = {"cases": done, "outcomes": {}, "wrong": [died], "longest_seconds": 0.0, "memory_mb": 0.0}
    process.join()
    return outcome


def _work(kind: str, cases: list[int], seed: int, place: Any, writer: Any) -> None:
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20, MEGABYTES << 20))
    signal.signal(signal.SIGALRM, _hangs)
    outcomes: Counter[str] = Counter()
    longest = 0.0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        case = CASES[kind](Path(folder))
        for number in tqdm(cases, desc=kind, disable=None):
            place.value = number
            clock = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                outcomes[case(generator("fuzz", kind, seed, number))] += 1
            except Exception as error:
                wrong.append(f"case {number}: {type(error).__name__}: {error}")
            signal.alarm(0)
            longest = max(longest, time.perf_counter() - clock)
        del case  # which ends what it has opened in the folder
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    found = {"cases": len(cases), "outcomes": dict(outcomes), "wrong": wrong}
    writer.send(found | {"longest_seconds": longest, "memory_mb": memory})
    writer.close()


def _hangs(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no answer in {SECONDS} s")


def page(record: dict[str, dict[str, Any]], command: str, load: float) -> list[str]:
    """Return the page of the outcome."""
    lines = heading("Hostile input", command, "numpy", "pycocotools", "pydantic", "starlette")
    lines += [
        "Good input is changed at random, as its kind says below, and given to the code that takes it, in processes of",
        f"at most {MEGABYTES:,} MB of addresses. Wrong: an error that is not meant for a person, a result that does",
        f"not agree with itself, a process that died, no answer in {SECONDS} s. Load average of the machine at the",
        f"end: {load:.1f}. A kind that the command does not name keeps the numbers of an earlier run.",
        "",
        "| kind | inputs | inputs a second | outcome | wrong | longest | memory |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for kind, one in record.items():
        outcome = ", ".join(f"{count:,} {name}" for name, count in one["outcomes"].items())
        cells = f"{len(one['wrong'])} | {one['longest_seconds']:.1f} s | {one['memory_mb']:,.0f} MB"
        rate = f"{one['per_second']:,.0f}" if "per_second" in one else "–"
        lines.append(f"| {kind} | {one['cases']:,} | {rate} | {outcome} | {cells} |")
    total, bad = sum(one["cases"] for one in record.values()), sum(len(one["wrong"]) for one in record.values())
    lines += [f"| all | {total:,} | | | {bad} | | |", ""]
    lines += [f"- **{kind}**: {WHAT[kind]}" for kind in record if kind in WHAT]
    wrong = [f"{kind}, {text}" for kind, one in record.items() for text in one["wrong"]]
    return [*lines, *(["", *(f"- {text}" for text in wrong[:20])] if wrong else [])]


if __name__ == "__main__":
    main()
