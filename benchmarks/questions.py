"""Questions: every policy on simulated worlds and on real predictions; what each costs, brings, and claims rightly.

Four parts: `simulated` (levels and sizes), `nuclei` (a file of predictions, a finished run, or both), `claims` (are
certificates true, on many small worlds) and `pilot` (does the forecast hold). The record is written after each run, and
runs that stand in it, measured by the same code, are not repeated: the command can be stopped and given again.

Usage: python benchmarks/questions.py [--only simulated nuclei claims pilot] [--levels BCDE] [--sizes 82306 411530]
       [--policies certified ...] [--seeds 5] [--nuclei FILE.npz] [--run DIR] [--processes 1] [--keep-older]
"""

import argparse
import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import questions_page
import questions_runs
from common import OUTPUT, machine, publish
from questions_runs import FILE, RUN, SETTINGS, Place, Task
from segloop.files import read_json, write_json
from segloop.runs import versions

PARTS = ("simulated", "nuclei", "claims", "pilot")
Note = Callable[[dict[str, Any]], None]


def main() -> None:
    """Measure what is wanted and not yet there, then write the page and the figure."""
    options = _options()
    record = _kept(options.output, options.keep_older)
    before = {run["key"]: run for run in record["runs"]}
    tasks = [task for task in _tasks(options) if not _fresh(before.get(task.key))]
    tasks.sort(key=lambda task: task.key in before)
    print(f"{len(before)} runs are there, {len(tasks)} to do", flush=True)

    def note(run: dict[str, Any]) -> None:
        older = before.get(run["key"])
        if older is not None:
            record["runs"].remove(older)
            record["repeated"] = questions_runs.repeated(record["repeated"], older, run)
        record["runs"].append(run)
        _write(record, options.output)
        print(_words(run), flush=True)

    groups = list(_by_world(tasks))
    if options.processes > 1:
        _measure_in_processes(groups, options.processes, note)
    else:
        for group in groups:
            _measure_group(group, note)
    if "pilot" in options.only and options.nuclei is not None:
        place = Place("nuclei", FILE, 0, 0, 0.8, str(options.nuclei.absolute()))
        record["pilot"] = questions_runs.back_test(place, options.pilot_seeds, options.pilot_worlds)
    questions_page.draw(record, options.output / "questions.png")
    publish("questions", questions_page.page(record), record, options.output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="none: the page alone")
    parser.add_argument("--levels", default=questions_runs.LEVELS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(questions_runs.SUBCLUSTERS))
    parser.add_argument("--policies", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=questions_runs.SEEDS, help="simulated worlds of a level and size")
    parser.add_argument("--nuclei", type=Path, metavar="FILE", help="predictions on real images, with their truth")
    parser.add_argument("--run", type=Path, metavar="DIR", help="a finished run, such as runs/nuclei")
    parser.add_argument("--nuclei-seeds", type=int, default=questions_runs.NUCLEI_SEEDS)
    parser.add_argument("--claims", type=int, default=questions_runs.CLAIMS, help="small worlds, are claims true")
    parser.add_argument("--pilot-seeds", type=int, default=10)
    parser.add_argument("--pilot-worlds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--keep-older", action="store_true", help="keep runs of other code until they are measured again"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the record, the page and the figure")
    return parser.parse_args()


def _tasks(options: argparse.Namespace) -> Iterator[Task]:
    if "simulated" in options.only:
        yield from questions_runs.simulated_tasks(options.levels, options.sizes, options.policies, options.seeds)
    if "nuclei" in options.only:
        for world, source in ((FILE, options.nuclei), (RUN, options.run)):
            for t_iou in (0.8, 0.7) if source is not None else ():
                yield from questions_runs.nuclei_tasks(world, source, t_iou, options.policies, options.nuclei_seeds)
    if "claims" in options.only:
        yield from questions_runs.claim_tasks(options.policies, options.claims)


def _kept(folder: Path, older: bool) -> dict[str, Any]:
    """Return what was measured before, without the runs of other code unless they are wanted."""
    path = folder / "questions.json"
    before: dict[str, Any] = read_json(path) if path.exists() else {"runs": []}
    runs = [run for run in before["runs"] if older or _fresh(run)]
    if len(runs) < len(before["runs"]):
        print(f"{len(before['runs']) - len(runs)} runs were measured by other code and are dropped (see --keep-older)")
    pilot = before.get("pilot")
    fresh = pilot is not None and (older or pilot["code"] == questions_runs.code("certified"))
    repeated = before.get("repeated", questions_runs.NOT_REPEATED)
    return {"runs": runs, "repeated": repeated, "pilot": pilot if fresh else None}


def _fresh(run: dict[str, Any] | None) -> bool:
    """Return whether a run was measured, and by the present code."""
    return run is not None and run["code"] == questions_runs.code(run["policy"])


def _write(record: dict[str, Any], folder: Path) -> None:
    write_json(folder / "questions.json", {"machine": machine(), "versions": versions(), **record}, sealed=False)


def _words(run: dict[str, Any]) -> str:
    place = f"{run['policy']} on {run['world']}"
    if "left_out" in run:
        return f"{place} is left out: {run['left_out']}"
    figures = {name: run[name] for name in ("masks_per_question", "precision", "recall", "certified")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
    return f"{place}, n = {run['n']:,}, seed {run['seed']}: {run['questions']:,} questions, {shown}"


# --- measuring --------------------------------------------------------------------------------------------------------


def _by_world(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Yield the tasks of each world, which is built once for all of them."""
    places = dict.fromkeys(task.place for task in tasks)
    for place in places:
        yield [task for task in tasks if task.place == place]


def _measure_group(group: Sequence[Task], note: Note) -> None:
    begin = time.monotonic()
    place = group[0].place
    known = questions_runs.build(place)
    if place.part != "claims":
        print(
            f"{place.name}, n = {len(known):,}, seed {place.seed}: built in {time.monotonic() - begin:.0f} s",
            flush=True,
        )
    for task in group:
        note(questions_runs.measure(task, known))


def _measure_in_processes(groups: Sequence[list[Task]], processes: int, note: Note) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(processes, mp_context=context) as pool:
        done = manager.Queue()
        futures = [pool.submit(_measure_remotely, group, done) for group in groups]
        while not all(future.done() for future in futures) or not done.empty():
            try:
                note(done.get(timeout=1))
            except queue.Empty:
                _raise_failure(futures)
        _raise_failure(futures)


def _raise_failure(futures: Sequence["Future[None]"]) -> None:
    for future in futures:
        if future.done():
            future.result()


def _measure_remotely(group: Sequence[Task], done: Any) -> None:
    _measure_group(group, done.put)


if __name__ == "__main__":
    main()
