"""Damaged input by the hundred thousand: run lengths, JSON files and PNGs; nothing may crash, hang or fill memory.

Usage: python benchmarks/fuzz_formats.py [--masks N] [--json N] [--images N] [--seed S]

Each case is a good piece of data with bytes changed, cut, doubled or swapped. It is read as segloop reads it: either
the reader names what is wrong, or what it read is sound. The work is done in a process of limited memory, so that a
crash or an excess ends it and is reported with its case; a case that takes longer than a minute counts as hanging. The
tests call the same functions with fewer cases.
"""

import argparse
import io
import json
import logging
import multiprocessing
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from common import OUTPUT, heading, publish
from segloop.config import LabelledSetConfig
from segloop.data import masks
from segloop.data.formats import open_dataset
from segloop.data.images import image_size, open_image, open_labels
from segloop.data.mask_batches import check_batch
from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError
from segloop.randomness import generator

SECONDS = 60
"""A case that takes longer hangs."""
MEGABYTES = 4096
"""Address space that a process may take; the libraries alone take some two thousand."""
SIZE = (23, 31)


def main() -> None:
    """Run all three kinds and write docs/benchmarks/fuzz_formats.{md,json}."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--masks", type=int, default=100_000)
    parser.add_argument("--json", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the page and the record go")
    options = parser.parse_args()
    record = {}
    for name in CASES:
        parts = np.array_split(np.arange(getattr(options, name)), options.processes)
        with ThreadPoolExecutor(options.processes) as pool:
            found = pool.map(lambda part, name=name: in_limits(name, part.tolist(), options.seed), parts)
            record[name] = together(list(found))
    publish("fuzz_formats", page(record), record, options.output)


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
        outcome = {"outcomes": {}, "wrong": [died], "longest_seconds": 0.0, "memory_mb": 0.0}
    process.join()
    return outcome | {"cases": len(cases)}


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
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    writer.send({"outcomes": dict(outcomes), "wrong": wrong, "longest_seconds": longest, "memory_mb": memory})
    writer.close()


def _hangs(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no answer in {SECONDS} s")


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, numbers: np.random.Generator) -> bytes:
    """Return bytes with one to four changes: bits, bytes, cuts, doublings, pieces moved."""
    changed = bytearray(data)
    for _ in range(numbers.integers(1, 5)):
        if not changed:
            break
        start = int(numbers.integers(0, len(changed)))
        end = min(len(changed), start + int(numbers.integers(1, 9)))
        match int(numbers.integers(0, 7)):
            case 0:
                changed[start] ^= 1 << int(numbers.integers(0, 8))
            case 1:
                changed[start] = int(numbers.integers(0, 256))
            case 2:
                del changed[start:end]
            case 3:
                changed[start:start] = changed[start:end]
            case 4:
                changed[start:start] = numbers.bytes(int(numbers.integers(1, 9)))
            case 5:
                del changed[start:]
            case 6:
                other = int(numbers.integers(0, len(changed)))
                changed[start:end], changed[other:other] = b"", changed[start:end]
    return bytes(changed)


Case = Callable[[np.random.Generator], str]


def with_empty_runs(good: masks.Rle, numbers: np.random.Generator) -> bytes:
    """Return a mask's string with one of its runs cut in two by an empty one, which pycocotools would not write."""
    pixels = masks.decode(good).ravel(order="F")
    borders = np.flatnonzero(np.diff(pixels.astype(np.int8), prepend=0))
    runs = np.diff(borders, prepend=0, append=len(pixels)).tolist()
    place = int(numbers.integers(0, len(runs)))
    first = int(numbers.integers(0, runs[place] + 1))
    runs[place : place + 1] = [first, 0, runs[place] - first]
    made = coco_mask.frPyObjects({"size": good["size"], "counts": runs}, *good["size"])
    return bytes(made["counts"])


ODD = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    1 << 70,
    "",
    "7",
    "\ud800",
    "../x",
    "/x",
    [],
    [[]],
    {},
    "a\0",
]
"""Values that stand where others should."""


def odd_value(value: Any, numbers: np.random.Generator) -> Any:
    """Return a value of JSON with one thing in it, at any depth, made odd, doubled or left out."""
    if isinstance(value, dict | list) and value and numbers.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[numbers.integers(0, len(keys))]
        copy = value.copy()
        match int(numbers.integers(0, 8)):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, list):
                copy.append(copy[key])
            case _:
                copy[key] = odd_value(copy[key], numbers)
        return copy
    return ODD[numbers.integers(0, len(ODD))]


def mask_cases(folder: Path) -> Case:
    """Return a function that damages a mask: the check refuses it, or area, box and pixels agree."""

    def case(numbers: np.random.Generator) -> str:
        good = masks.encode(numbers.random(SIZE) < numbers.uniform(0, 1))
        counts = damaged(good["counts"], numbers) if numbers.random() < 0.8 else with_empty_runs(good, numbers)
        size = list(SIZE) if numbers.random() < 0.9 else numbers.integers(-1, 40, 2).tolist()
        batch = check_batch([good["counts"], counts, good["counts"]], [SIZE, size, SIZE])
        assert set(batch.problems) <= {1}
        try:
            rle = masks.check({"size": size, "counts": counts})
        except masks.MaskError:
            assert 1 in batch.problems
            return "refused"
        pixels = masks.decode(rle)
        assert pixels.shape == tuple(size)
        assert pixels.sum() == masks.area([rle])[0] == batch.area[1]
        assert masks.boxes([rle])[0].tolist() == batch.box[1].tolist()
        return "sound"

    return case


def json_cases(folder: Path) -> Case:
    """Return a function that damages a COCO file: it is refused, or each record is used or named."""
    square = np.zeros((6, 8), bool)
    square[1:4, 2:5] = True
    base = {"image_id": 5, "category_id": 1}
    value = {
        "images": [{"id": 5, "file_name": "a/ü b.png", "width": 8, "height": 6}, {"id": 6, "file_name": "c.png"}],
        "annotations": [
            base | {"id": 1, "segmentation": masks.to_json(masks.encode(square))},
            base | {"id": 2, "segmentation": [[2, 1, 5, 1, 5.5, 4, 2, 4]], "iscrowd": 0},
            base | {"id": 3, "segmentation": {"size": [6, 8], "counts": [13, 3, 3, 3, 26]}, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "thing", "supercategory": "x"}],
    }
    good = json.dumps(value, ensure_ascii=False).encode()
    path = folder / "train.json"
    config = LabelledSetConfig(annotations="train.json")

    def case(numbers: np.random.Generator) -> str:
        if numbers.random() < 0.5:
            path.write_bytes(damaged(good, numbers))
        else:
            path.write_text(json.dumps(odd_value(value, numbers)), encoding="utf-8")
        report = SkipReport(None, 1.0)
        try:
            dataset = open_dataset(config, data_root=folder, report=report)
            found = list(dataset.labelled())
        except SegloopError:
            return "refused"
        for image, annotations in found:
            for one in annotations:
                pixels = masks.decode(masks.check(one["segmentation"], (image["height"], image["width"])))
                assert pixels.sum() == one["area"] > 0
        return "read with records skipped" if report.skipped else "read whole"

    return case


def image_cases(folder: Path) -> Case:
    """Return a function that damages a picture: it is refused, or has the size that its head says."""
    colours = np.arange(19 * 17 * 3).reshape(19, 17, 3).astype(np.uint8)
    pictures = [
        ("PNG", Image.fromarray(colours)),
        ("PNG", Image.fromarray(colours[:, :, 0])),
        ("PNG", Image.fromarray(colours[:, :, 0].astype(np.uint16) * 256)),
        ("PNG", Image.fromarray(colours).convert("P")),
        ("PNG", Image.fromarray(colours[:, :, 0] > 99)),
        ("JPEG", Image.fromarray(colours)),
    ]
    good = []
    for form, picture in pictures:
        stream = io.BytesIO()
        picture.save(stream, form)
        good.append(stream.getvalue())
    path = folder / "a.png"

    def case(numbers: np.random.Generator) -> str:
        path.write_bytes(damaged(good[numbers.integers(0, len(good))], numbers))
        try:
            width, height = image_size(path)
            pixels = open_image(path)
            labels = open_labels(path) if numbers.random() < 0.5 else pixels
        except SegloopError:
            return "refused"
        assert pixels.shape == (height, width, 3)
        assert labels.ndim in (2, 3)
        return "read"

    return case


CASES = {"masks": mask_cases, "json": json_cases, "images": image_cases}


def page(record: dict[str, dict[str, Any]]) -> list[str]:
    """Return the page of the outcome."""
    counts = " ".join(f"--{kind} {one['cases']}" for kind, one in record.items())
    lines = heading("Damaged input", f"python benchmarks/fuzz_formats.py {counts}", "numpy", "pycocotools")
    lines += [
        "Good run lengths, COCO files and pictures are changed at random (one to four pieces of bytes; in every other",
        f"COCO file one value) and read as segloop reads them, in processes of at most {MEGABYTES:,} MB of addresses.",
        "Wrong: an error that is not segloop's own, a result that does not agree with itself, a process that died, no",
        f"answer in {SECONDS} s.",
        "",
        "| kind | cases | outcome | wrong | longest | memory |",
        "|---|---|---|---|---|---|",
    ]
    for kind, one in record.items():
        outcome = ", ".join(f"{count:,} {name}" for name, count in one["outcomes"].items())
        cells = f"{len(one['wrong'])} | {one['longest_seconds']:.1f} s | {one['memory_mb']:,.0f} MB"
        lines.append(f"| {kind} | {one['cases']:,} | {outcome} | {cells} |")
    wrong = [text for one in record.values() for text in one["wrong"]]
    return [*lines, *(["", *(f"- {text}" for text in wrong[:20])] if wrong else [])]


if __name__ == "__main__":
    main()
