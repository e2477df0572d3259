"""How fast data sets are read, and in how much memory: COCO files, Places365 lists, masks.

Usage: python benchmarks/formats.py [--only coco stream places masks] [--share S]

Every measurement is a process of its own, so that its peak of memory is its own. coco: 1.2 million annotations, as
COCO's own mostly polygons, opened and every record checked without rasterising, beside what pycocotools takes to load
the file. stream: the same of a file of 2 GB. places: a list of 8,026,628 lines cut into 800 shards. masks: run lengths
of a million masks checked, with areas and boxes. --share makes all of it smaller.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common import OUTPUT, heading, machine, publish
from segloop.config import LabelledSetConfig, PoolConfig
from segloop.data import masks
from segloop.data.doctor.coco_files import examine_coco
from segloop.data.formats import open_dataset
from segloop.data.mask_batches import check_batch
from segloop.data.pool import shard_pool
from segloop.data.skipped import SkipReport
from segloop.files import read_json
from segloop.randomness import generator
from segloop.runs import versions

PARTS = ("coco", "stream", "places", "masks")
ANNOTATIONS = {"coco": 1_200_000, "stream": 3_900_000}
LINES = 8_026_628
SHARDS = 800
MASKS = 1_000_000
SIZE = (480, 640)


def main() -> None:
    """Measure the parts that are wanted; each is published when it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes named above")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the page and the record go")
    parser.add_argument("--task", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measured(TASKS[options.task[0]], Path(options.task[1]))))
        return
    record = _kept(options.output)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            record[name] = {"share": options.share} | PREPARED[name](Path(folder), options.share)
        publish("formats", page(record), record, options.output)


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / "formats.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    if {key: found.get(key) for key in ("machine", "versions")} != {"machine": machine(), "versions": versions()}:
        return {}
    return {name: found[name] for name in PARTS if name in found}


def in_a_process(task: str, folder: Path) -> dict[str, Any]:
    """Run a task in a process of its own and return what it measured."""
    command = [sys.executable, __file__, "--task", task, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(task: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Return what a task says, its seconds by the clock and of the processor, and the peak of memory in MB."""
    clock, processor = time.perf_counter(), time.process_time()
    said = task(folder)
    return said | {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - processor,
        "memory_mb": peak_mb(),
    }


def peak_mb() -> float:
    """Return the largest resident set of this process; getrusage would count that of the process before it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


# --- COCO -------------------------------------------------------------------------------------------------------------


def draw_coco(path: Path, annotations: int) -> None:
    """Write a COCO file; lengths of records are as in instances_train2017.json, 520 bytes on average."""
    numbers = generator("bench-formats", "coco")
    shapes = [_outline(numbers) for _ in range(5000)]
    images = max(1, annotations // 7)
    chosen = numbers.integers(0, len(shapes), annotations)
    image = numbers.integers(1, images + 1, annotations)
    category = numbers.integers(1, 81, annotations)
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for number in range(1, images + 1):
            name = f'"{number:012}.jpg", "coco_url": "http://images.cocodataset.org/train2017/{number:012}.jpg"'
            comma = ", " if number > 1 else ""
            file.write(f'{comma}{{"id": {number}, "file_name": {name}, "height": {SIZE[0]}, "width": {SIZE[1]}}}')
        file.write('], "annotations": [')
        for number in range(annotations):
            file.write(", " if number else "")
            belongs = f'"image_id": {image[number]}, "category_id": {category[number]}, "id": {number + 1}'
            file.write(f"{{{shapes[chosen[number]]}, {belongs}}}")
        categories = ", ".join(f'{{"id": {number}, "name": "category {number}"}}' for number in range(1, 81))
        file.write(f'], "categories": [{categories}]}}')


def _outline(numbers: np.random.Generator) -> str:
    """Return segmentation, area, box and crowd of an annotation: a polygon, one in a hundred a crowd of runs."""
    if numbers.random() < 0.01:
        runs = numbers.multinomial(SIZE[0] * SIZE[1], np.ones(301) / 301).tolist()
        rle = f'{{"counts": {runs}, "size": {list(SIZE)}}}'
        box = [0, 0, SIZE[1], SIZE[0]]
        return f'"segmentation": {rle}, "area": {sum(runs[1::2])}, "bbox": {box}, "iscrowd": 1'
    count = 3 + int(numbers.gamma(2.0, 11.5))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radius = numbers.uniform(5, 90) * numbers.uniform(0.7, 1.3, count)
    x, y = numbers.uniform(90, 550), numbers.uniform(90, 390)
    points = np.stack((x + radius * np.cos(angle), y + radius * np.sin(angle)), axis=1).round(2)
    ring = points.ravel().tolist()
    following = np.roll(points, -1, axis=0)
    area = abs(float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum())) / 2
    box = [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).round(2).tolist()]
    return f'"segmentation": [{ring}], "area": {area:.4f}, "iscrowd": 0, "bbox": {box}'


def coco(folder: Path, share: float) -> dict[str, Any]:
    """Measure segloop and pycocotools on one file."""
    path = folder / "coco.json"
    draw_coco(path, round(ANNOTATIONS["coco"] * share))
    found = {name: in_a_process(name, folder) for name in ("read", "judge", "pycocotools")}
    return {"megabytes": path.stat().st_size / 1e6, **found}


def stream(folder: Path, share: float) -> dict[str, Any]:
    """Measure segloop alone on a file of 2 GB."""
    path = folder / "coco.json"
    draw_coco(path, round(ANNOTATIONS["stream"] * share))
    return {"megabytes": path.stat().st_size / 1e6, "read": in_a_process("read", folder)}


def read_with_segloop(folder: Path) -> dict[str, Any]:
    """Open the file, and check the structure of every record."""
    report = SkipReport(None, 0.0)
    config = LabelledSetConfig(annotations="coco.json")
    dataset = open_dataset(config, data_root=folder, report=report, rasterise=False)
    images = annotations = 0
    for _, found in dataset.labelled():
        images += 1
        annotations += len(found)
    return {"images": images, "annotations": annotations, "skipped": len(report.skipped)}


def judge_with_segloop(folder: Path) -> dict[str, Any]:
    """Do what `segloop doctor --check-images none` does, which draws every polygon."""
    found = examine_coco(folder / "coco.json", "coco", images=None, check="none")
    return {
        "images": found.usable_images,
        "annotations": found.usable_annotations,
        "skipped": len(found.bad),
        "odd": len(found.odd),
    }


def load_with_pycocotools(folder: Path) -> dict[str, Any]:
    """Load the file, which checks nothing."""
    from pycocotools.coco import COCO

    loaded = COCO(str(folder / "coco.json"))
    return {"images": len(loaded.imgs), "annotations": len(loaded.anns)}


# --- Places365 --------------------------------------------------------------------------------------------------------


def places(folder: Path, share: float) -> dict[str, Any]:
    """Measure the cutting of a list of the length of places365_train_challenge.txt."""
    with (folder / "list.txt").open("w") as file:
        for number in range(round(LINES * share)):
            scene = number % 365
            file.write(f"/{chr(97 + scene % 26)}/scene_{scene}/outdoor/{number:08}.jpg {scene}\n")
    return in_a_process("shard", folder)


def cut_list(folder: Path) -> dict[str, Any]:
    """Cut the list into shards."""
    config = PoolConfig(format="places365", list="list.txt", images="data_large", shards=SHARDS)
    manifest = folder / "manifest.json"
    shard_pool(
        config=config,
        data_root=folder,
        seed=0,
        output=folder / "shards",
        manifest=manifest,
        skipped=folder / "skipped.json",
        max_skipped=0.0,
    )
    return {"images": read_json(manifest)["images"], "shards": len(read_json(manifest)["shards"])}


# --- masks ------------------------------------------------------------------------------------------------------------


def many_masks(folder: Path, share: float) -> dict[str, Any]:
    """Measure the check of a million masks of 150 characters on average."""
    (folder / "count").write_text(str(round(MASKS * share)))
    return in_a_process("check", folder)


def draw_masks(count: int) -> list[bytes]:
    """Return the run lengths of drawn blobs; of 1,000 different ones each is repeated."""
    numbers = generator("bench-formats", "masks")
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    shapes = []
    while len(shapes) < 1000:
        height, width = numbers.uniform(8, 62, 2)
        y, x = numbers.uniform(0, SIZE[0]), numbers.uniform(0, SIZE[1])
        wave = 3 * np.sin(rows / 5) + 3 * np.sin(columns / 4)
        blob = ((rows - y + wave) / height) ** 2 + ((columns - x + wave) / width) ** 2 < 1
        if blob.any():
            shapes.append(masks.encode(blob)["counts"])
    return [shapes[number] for number in numbers.integers(0, len(shapes), count)]


def check_masks(folder: Path) -> dict[str, Any]:
    """Check masks; drawing them is not measured."""
    counts = draw_masks(int((folder / "count").read_text()))
    sizes = np.tile(SIZE, (len(counts), 1))
    clock, processor = time.perf_counter(), time.process_time()
    found = check_batch(counts, sizes)
    return {
        "masks": len(counts),
        "characters": float(np.mean([len(one) for one in counts])),
        "problems": len(found.problems),
        "check_seconds": time.perf_counter() - clock,
        "check_cpu_seconds": time.process_time() - processor,
    }


TASKS = {
    "read": read_with_segloop,
    "judge": judge_with_segloop,
    "pycocotools": load_with_pycocotools,
    "shard": cut_list,
    "check": check_masks,
}
PREPARED = {"coco": coco, "stream": stream, "places": places, "masks": many_masks}


# --- the page ---------------------------------------------------------------------------------------------------------


def page(record: dict[str, Any]) -> list[str]:
    """Return the page of what was measured so far."""
    lines = heading("Reading data sets", "make bench-formats", "numpy", "pycocotools")
    lines[2] += " " + ", ".join(f"{name} {version(name)}" for name in ("msgspec", "pyarrow")) + "."
    lines += [
        "Each line is a process of its own, on one core. The machine was shared with other work:",
        "seconds by the clock are upper bounds. Seconds of the processor say what the work itself took; they grow with",
        "the load, too, but less. Memory is the largest resident set.",
        "",
        "| what | seconds | of the processor | memory |",
        "|---|---|---|---|",
    ]
    for name in ("coco", "stream"):
        if name in record:
            lines += [_row(f"{_size(record[name])}: opened, every record checked", record[name]["read"])]
        if name == "coco" and name in record:
            lines += [_row("the same file examined by `segloop doctor`, every mask drawn", record[name]["judge"])]
            lines += [_row("the same file loaded by pycocotools, which checks nothing", record[name]["pycocotools"])]
    if "places" in record:
        one = record["places"]
        lines += [_row(f"list of {one['images']:,} lines into {one['shards']} shards", one)]
    if "masks" in record:
        one = record["masks"]
        shown = one | {"seconds": one["check_seconds"], "cpu_seconds": one["check_cpu_seconds"]}
        what = f"{one['masks']:,} masks of {one['characters']:.0f} characters: runs checked, areas and boxes"
        rate = one["masks"] / one["check_cpu_seconds"]
        lines += [_row(what, shown), "", f"That is {rate:,.0f} masks a second of the processor."]
    return lines


def _size(one: dict[str, Any]) -> str:
    return f"COCO file of {one['megabytes']:,.0f} MB, {one['read']['annotations']:,} annotations"


def _row(what: str, one: dict[str, Any]) -> str:
    return f"| {what} | {one['seconds']:.0f} | {one['cpu_seconds']:.1f} | {one['memory_mb']:,.0f} MB |"


if __name__ == "__main__":
    main()
