"""Part of `load.py`: a pool of very many shards is cut, and its manifest and its list of shards are read."""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any, Final

from segloop.config import PoolConfig
from segloop.data.pool import read_shard, shard_pool, shard_tables
from segloop.files import read_json

EACH: Final = 80
"""Images of a shard; 100,000 shards hold the 8 million of Places."""


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return times, memory and bytes for a hundredth, a tenth and all of the shards."""
    runs = []
    for shards in sorted({max(1, options.shards // 100), max(1, options.shards // 10), options.shards}):
        place = folder / str(shards)
        place.mkdir()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            runs.append(pool.apply(_cut, (place, shards)))
            pool.close()
            pool.join()
    return {"runs": runs}


def _cut(folder: Path, shards: int) -> dict[str, Any]:
    names = folder / "list.txt"
    with names.open("w", encoding="ascii") as file:
        file.writelines(f"a/{number // 1000:05}/{number:08}.jpg\n" for number in range(shards * EACH))
    config = PoolConfig.model_validate(
        {"format": "places365", "list": "list.txt", "images": "images", "shards": shards}
    )
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    manifest, output = folder / "manifest.json", folder / "shards"
    shard_pool(
        config=config,
        data_root=folder,
        seed=0,
        output=output,
        manifest=manifest,
        skipped=folder / "skipped.json",
        max_skipped=0.0,
    )
    cut = time.perf_counter() - begun
    begun = time.perf_counter()
    told = read_json(manifest)
    tables = shard_tables(output)
    read = time.perf_counter() - begun
    assert len(told["shards"]) == len(tables) == shards
    assert len(read_shard(tables[-1]).image_id) == EACH == told["shards"][-1]["images"]
    return {
        "shards": shards,
        "images": shards * EACH,
        "cut_seconds": round(cut, 1),
        "read_seconds": round(read, 2),
        "manifest_mb": round(manifest.stat().st_size / 1e6, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        "peak_before_mb": before // 1000,
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return the part of the page about shards."""
    found = [
        "## Shards",
        "",
        f"A list of images is cut into shards of {EACH} by the rule `shard_pool`, each a file with its hash in",
        "the manifest; then the manifest and the names of all shards are read, as planning does. Peak: of the whole",
        "process; the number in brackets is that of the libraries alone. What Snakemake itself takes to plan stands in",
        f"[planning.md](planning.md). Load average at the end: {record['load_average']}.",
        "",
        "| shards | images | cut | a shard | manifest | read again | peak |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in record["runs"]:
        cells = (
            f"{run['shards']:,}",
            f"{run['images']:,}",
            f"{run['cut_seconds']:.0f} s",
            f"{1e3 * run['cut_seconds'] / run['shards']:.1f} ms",
            f"{run['manifest_mb']:.1f} MB",
            f"{run['read_seconds']:.1f} s",
            f"{run['peak_mb']} MB ({run['peak_before_mb']} MB)",
        )
        found.append(f"| {' | '.join(cells)} |")
    return [*found, ""]
