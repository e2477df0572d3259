"""Faults by the hundred: each seed injects one into the tiny loop or the labelling server, and compares what is left.

Writes docs/reliability.md and docs/benchmarks/faults.json.

Usage: python benchmarks/faults.py [--seeds 240] [--first 0] [--minutes 240] [--kinds "kill job" ...] [--folder DIR]
"""

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common import OUTPUT, REPOSITORY, heading, machine
from segloop.files import read_json, write_json
from segloop.runs import versions

sys.path.insert(0, str(REPOSITORY))

from tests.faults.harness import Outcome, make_answered
from tests.faults.kinds import FAULTS, SERVERS, run_fault
from tests.loops import Loop, configuration

PAGE = REPOSITORY / "docs" / "reliability.md"


def main() -> None:
    """Inject faults and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=240, help="number of faults (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on behind the seeds of docs/benchmarks/faults.json")
    parser.add_argument("--minutes", type=float, default=240.0, help="no further fault after these (default: 240)")
    parser.add_argument("--kinds", nargs="+", choices=[*FAULTS, *SERVERS], help="default: all that can be tried here")
    parser.add_argument("--undisturbed", type=Path, metavar="DIR", help="with `run` and `tiny.yaml` of an earlier time")
    parser.add_argument("--folder", type=Path, help="where the runs lie (default: a temporary folder)")
    parser.add_argument("--processes", type=int, default=1, help="faults at a time (default: %(default)s)")
    options = parser.parse_args()
    begun = time.time()
    tried = {name: (FAULTS | SERVERS)[name].without() for name in options.kinds or [*FAULTS, *SERVERS]}
    kinds = [name for name, reason in tried.items() if reason is None]
    outcomes, seconds = _earlier() if options.resume else ([], 0.0)
    first = options.first + len(outcomes)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        undisturbed = _undisturbed(folder / "undisturbed", options.undisturbed)
        answered = make_answered(undisturbed, folder / "answered")
        work = partial(_one, kinds, undisturbed, answered, folder, begun + 60 * options.minutes)
        seeds = range(first, options.first + options.seeds)
        with ProcessPoolExecutor(options.processes) as pool:
            bar = tqdm(pool.map(work, seeds), total=len(seeds), unit="fault", disable=None)
            for outcome in bar:
                if outcome is None:
                    break
                outcomes.append(outcome)
                for line in outcome.wrong:
                    bar.write(f"seed {outcome.seed}, {outcome.fault}, {outcome.step}: {line}")
                # What is known so far is on the disk, whatever becomes of this process.
                _publish(options, outcomes, tried, seconds + time.time() - begun)
    print(PAGE.read_text(encoding="utf-8"))
    sys.exit(any(one.wrong for one in outcomes))


def _undisturbed(folder: Path, earlier: Path | None) -> Loop:
    if earlier is not None:
        return Loop(earlier.resolve() / "run", earlier.resolve() / "tiny.yaml")
    folder.mkdir()
    loop = Loop(folder / "run", configuration(folder / "tiny.yaml"))
    loop.directory.mkdir()
    loop.run()
    return loop


def _earlier() -> tuple[list[Outcome], float]:
    record = read_json(OUTPUT / "faults.json")
    found = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()}
        for one in record["outcomes"]
    ]
    return [Outcome(**one) for one in found], record["seconds"]


def _one(kinds: list[str], undisturbed: Loop, answered: Loop, folder: Path, until: float, seed: int) -> Outcome | None:
    """Inject one fault; None when time is up."""
    if time.time() > until:
        return None
    place, name = folder / f"seed_{seed}", kinds[seed % len(kinds)]
    place.mkdir()
    rule = "labelmelite" if name in SERVERS else random.Random(f"step {seed}").choice(FAULTS[name].steps)
    try:
        if name in SERVERS:
            outcome = SERVERS[name].attack(seed, place)
        else:
            outcome = run_fault(name, rule, seed, undisturbed, answered, place)
    except Exception as error:
        # A fault that breaks even the comparison ends no long run, and passes for nothing.
        outcome = Outcome(name, rule, seed, True, differing=(f"{type(error).__name__}: {error}",))
    shutil.rmtree(place, ignore_errors=True)
    return replace(outcome, message=re.sub(r"/\S*/seed_\d+", "RUN", outcome.message))


def _publish(
    options: argparse.Namespace, outcomes: list[Outcome], tried: dict[str, str | None], seconds: float
) -> None:
    record = {
        "machine": machine(),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "load_average": os.getloadavg()[0],
        "processes": options.processes,
        "seeds": [options.first, options.first + len(outcomes)],
        "not_tried": {name: reason for name, reason in tried.items() if reason},
        "outcomes": [asdict(one) for one in outcomes],
    }
    write_json(OUTPUT / "faults.json", record, sealed=False)
    PAGE.write_text("\n".join(_page(record, outcomes)) + "\n", encoding="utf-8")


def _page(record: dict[str, Any], outcomes: list[Outcome]) -> list[str]:
    first, last = record["seeds"]
    words = f"--first {first} --seeds {last - first} --processes {record['processes']}"
    command = f'make bench-faults BENCH_ARGS="{words}"'
    page = heading("Reliability", command, "snakemake", "zarr", "torch")
    page += WORDS.strip().splitlines()
    page += ["", "## Injected faults", ""]
    page += [
        f"{len(outcomes)} faults in {record['seconds'] / 60:.0f} minutes, {record['processes']} at a time; "
        f"load average of the machine at the end: {record['load_average']:.1f}.",
        "The outcome of each seed stands in [benchmarks/faults.json](benchmarks/faults.json).",
        "",
        "| fault | what it is | injected | too late | told in words | answers | lost answers | differing results"
        " | taken for good | not told |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    totals: Counter[str] = Counter()
    for name, fault in (FAULTS | SERVERS).items():
        some = [one for one in outcomes if one.fault == name]
        if some:
            row = _row(some)
            totals.update(row)
            page.append(f"| {name} | {fault.words} | {' | '.join(f'{value:,}' for value in row.values())} |")
    page.append(f"| all | | {' | '.join(f'{value:,}' for value in totals.values())} |")
    steps = Counter(one.step for one in outcomes if one.hit)
    page += ["", "By step: " + ", ".join(f"{step} {count}" for step, count in sorted(steps.items())) + ".", ""]
    page += [f"Not tried: {name}, because {reason}." for name, reason in record["not_tried"].items()]
    return page


def _row(some: list[Outcome]) -> dict[str, int]:
    return {
        "injected": sum(one.hit for one in some),
        "late": sum(not one.hit for one in some),
        "told": sum(bool(one.message) for one in some),
        "answers": sum(one.answers for one in some),
        "lost": sum(one.lost for one in some),
        "differing": sum(bool(one.differing) for one in some),
        "believed": sum(bool(one.believed) for one in some),
        "unsaid": sum(bool(one.unsaid) for one in some),
    }


WORDS = """
A fault run begins with a copy of one undisturbed run of the tiny loop (`tests/tiny.yaml`), from which what one step
made was removed. The step is run again and attacked once, as the seed says: which step, which process, at which
operation on which file, which bit of which file. Then the fault is mended as its message says, the same command is
run again, and all results are compared with those of the undisturbed run, exactly (`segloop compare --exact`);
people's answers are compared one by one; `segloop doctor --deep` must find no damage any more. `tests/faults/` holds
the faults; `make test` injects a fixed sample of them.

- *injected*: the fault happened; *too late*: the process was gone, or the room sufficed, before it could.
- *told in words*: the step was refused, and the message was for people. A kill says nothing.
- *lost answers*: answers that were acknowledged, or handed over, and are missing or differ afterwards.
- *differing results*: after the rerun a result is not that of the undisturbed run, or doctor finds damage where there
  is none.
- *taken for good*: `segloop doctor --deep` passed a damaged file, or a step made other results of it.
- *not told*: a failure without words for people: which file, and what to do.

A step may go on with a store of which it reads an undamaged part only; its results are then the right ones, and
doctor names the store. Nodes of SLURM that go down, jobs that are cancelled, requeued or run out of memory or time,
and a Snakemake killed there are tested in `tests/slurm/test_faults.py` on a real SLURM.
"""


if __name__ == "__main__":
    main()
