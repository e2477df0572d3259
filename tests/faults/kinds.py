"""The kinds of faults: each attacks one step of a copied run, and hands it back to be run again."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from segloop import integrity
from segloop.data.doctor.run_folders import examine_run

from ..loops import Loop, processes, same_results, wait_for
from . import servers
from .harness import INJECT, STEPS, Case, Outcome, cannot_mount, descendants, kill, prepare, small_disk

FAKETIME: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
STORES: Final = (
    "predict_shard",
    "index_predictions",
    "partition_predictions",
    "link_partitions",
    "join_trees",
    "reduce_embeddings",
)
WITH_TORCH: Final = ("train_detector", "predict_shard", "evaluate_detector")


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    words: str
    attack: Callable[[Case], Outcome]
    steps: tuple[str, ...] = tuple(STEPS)
    changes: Mapping[str, Any] | None = None
    """Sections of the configuration that it needs."""
    small: bool = False
    """Whether the run lies on a small file system of its own."""
    without: Callable[[], str | None] = lambda: None
    """Why it cannot be tried on this machine."""


def run_fault(name: str, rule: str, seed: int, undisturbed: Loop, answered: Loop, folder: Path) -> Outcome:
    """Inject one fault into one step, run again, and tell what became of it."""
    fault = FAULTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    if fault.small:
        with small_disk(folder / "small", _size(undisturbed.directory) + (64 << 20)) as place:
            outcome = fault.attack(prepare(undisturbed, answered, rule, seed, place))
    else:
        outcome = fault.attack(prepare(undisturbed, answered, rule, seed, folder, **(fault.changes or {})))
    return replace(outcome, fault=name)


# --- kills ------------------------------------------------------------------------------------------------------------


def _kill_at_an_operation(process: str = "") -> Callable[[Case], Outcome]:
    """Return an attack: a process kills itself at one of its operations on files, or shortly after its beginning."""

    def attack(case: Case) -> Outcome:
        # Each file is opened and renamed; Snakemake's own files are some dozens.
        files = sum(len([path, *path.rglob("*")]) for path in _outputs(case.whole, case))
        most = 60 if process else 2 * files + 4
        mark = case.loop.directory.with_name("mark")
        fault = {
            "process": process or f"{case.step.rule}.py",
            "root": f"{case.loop.directory}/",
            "number": case.random.randint(1, most),
            "seconds": case.random.choice([0, 0, 0.0005, 0.005]),
            "mark": str(mark),
        }
        path = os.pathsep.join([str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        status, output = case.attempt(env={"PYTHONPATH": path, "SEGLOOP_FAULT": json.dumps(fault)})
        hit = mark.exists()
        told = not hit or process or status == 0 or case.step.rule in output
        return case.outcome(hit, unsaid=[] if told else [f"no word about {case.step.rule}: {output[-500:]}"])

    return attack


def _kill_some_process(case: Case) -> Outcome:
    """Kill any process of the run at any moment: Snakemake, an entry script, a worker."""
    process = case.start()
    time.sleep(case.random.uniform(0.2, 7.0))
    alive = [process.pid, *(number for number, _ in descendants(process.pid))]
    hit = process.poll() is None and kill(case.random.choice(alive))
    case.end(process)
    return case.outcome(hit)


def _kill_job(case: Case) -> Outcome:
    """Kill an entry script while it works."""
    process = case.start()
    wait_for(lambda: processes(case.loop.directory, case.step.rule) or process.poll() is not None)
    time.sleep(_moment(case))
    hit = sum(kill(job) for job in processes(case.loop.directory, case.step.rule)) > 0
    output = case.end(process)
    told = not hit or case.step.rule in output
    return case.outcome(hit, unsaid=[] if told else [f"no word about {case.step.rule}: {output[-500:]}"])


def _kill_all(case: Case) -> Outcome:
    """Kill the whole group at once, as when the machine loses power; the disk keeps what it was told."""
    process = case.start()
    wait_for(lambda: processes(case.loop.directory, case.step.rule) or process.poll() is not None)
    time.sleep(_moment(case))
    hit = process.poll() is None
    if hit:
        os.killpg(process.pid, signal.SIGKILL)
    case.end(process)
    return case.outcome(hit)


def _moment(case: Case) -> float:
    """Return how long an entry script may work before it is attacked, in seconds; most take one, or three."""
    return case.random.uniform(0.0, 3.0 if case.step.rule in WITH_TORCH else 0.5)


def _kill_in_checkpoint(case: Case) -> Outcome:
    """Kill a training as soon as the file of a checkpoint is begun."""
    folder = case.loop.directory / "checkpoints" / "iter_1"
    process = case.start()
    wait_for(lambda: any(folder.glob(".*.tmp-*")) or process.poll() is not None)
    hit = sum(kill(job) for job in processes(case.loop.directory, case.step.rule)) > 0
    case.end(process)
    return case.outcome(hit)


def _kill_worker(case: Case) -> Outcome:
    """Kill one of the processes that a step shares its work with."""
    process = case.start()
    victims: list[int] = []

    def found() -> bool:
        for job in processes(case.loop.directory, case.step.rule):
            victims[:] = [number for number, words in descendants(job) if "spawn_main" in words]
        return len(victims) > 1 or process.poll() is not None

    wait_for(found)
    time.sleep(case.random.uniform(0.0, 1.0))
    hit = bool(victims) and kill(case.random.choice(victims))
    output = case.end(process)
    told = process.returncode == 0 or case.step.rule in output
    return case.outcome(hit, unsaid=[] if told else [f"no word about the worker: {output[-500:]}"])


def _second_snakemake(case: Case) -> Outcome:
    """Start another Snakemake in the directory: it is refused, the first one goes on."""
    process = case.start()
    wait_for(lambda: processes(case.loop.directory, case.step.rule) or process.poll() is not None)
    jobs = processes(case.loop.directory, case.step.rule)
    # Held, because the second one waits for some seconds for the end of the first.
    for job in jobs:
        os.kill(job, signal.SIGSTOP)
    status, output = case.attempt()
    hit = process.poll() is None
    for job in jobs:
        os.kill(job, signal.SIGCONT)
    case.end(process)
    refused = status != 0 and ("cannot be locked" in output or "another Snakemake works" in output)
    unsaid = [] if refused or not hit else [f"status {status}: {output[-500:]}"]
    differing = [] if process.returncode == 0 else ["the first Snakemake failed"]
    return case.outcome(hit, unsaid=[*unsaid, *differing], message=_error(output))


# --- disks and clocks -------------------------------------------------------------------------------------------------


def _disk_full(case: Case) -> Outcome:
    """Let the disk become full while the step works."""
    place = case.loop.directory.parent
    filler = place / "filler"
    need = sum(_size(path) for path in _outputs(case.whole, case))
    room = int(need * case.random.uniform(0.05, 0.95)) + (40 << 10)
    with filler.open("wb") as file:
        status = os.statvfs(place)
        os.posix_fallocate(file.fileno(), 0, max(4096, status.f_bavail * status.f_frsize - room))
    code, output = case.attempt()
    filler.unlink()
    said = "no room is left" in output or "No space left on device" in output
    unsaid = [] if code == 0 or said else [f"status {code}: {output[-800:]}"]
    return case.outcome(code != 0, unsaid=unsaid, message=_error(output))


def _read_only(case: Case) -> Outcome:
    """Let the folder of the results be read only; as root, a mount alone does it."""
    folder = case.loop.directory / "results" / "iter_1"
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        code, output = case.attempt()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    said = "Read-only file system" in output or "read only" in output
    unsaid = [] if code != 0 and said else [f"status {code}: {output[-800:]}"]
    return case.outcome(True, unsaid=unsaid, message=_error(output))


def _bad_image(case: Case) -> Outcome:
    """Cut an image of the pool short, as a failing disk gives it; more than `max_skipped` of these stop the job."""
    images = sorted((case.loop.directory / "data/demo/pool/images").rglob("*.*"))
    image = case.random.choice(images[: len(images) // 2])
    whole = image.read_bytes()
    image.write_bytes(whole[: case.random.randrange(1, len(whole) // 2)])
    code, output = case.attempt()
    image.write_bytes(whole)
    said = code != 0 and image.name in output and "Mend the data" in output
    return case.outcome(True, unsaid=[] if said else [f"status {code}: {output[-800:]}"], message=_error(output))


def _clock_jump(case: Case) -> Outcome:
    """Let the clock jump while the step works, by days to and fro; what it wrote keeps the times of that clock."""
    days = case.random.choice([-400, -30, -1, 1, 30, 400])
    clock = case.loop.directory.with_name("clock")
    clock.write_text("+0\n")
    env = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    env |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    before = time.time()
    process = case.start(env=env)
    wait_for(lambda: processes(case.loop.directory, case.step.rule) or process.poll() is not None)
    time.sleep(_moment(case))
    hit = process.poll() is None
    clock.write_text(f"{days:+d}d\n")
    case.end(process)
    for top in _outputs(case.loop, case):
        for path in (top, *top.rglob("*")):
            if path.exists() and path.stat().st_mtime >= before:
                os.utime(path, (path.stat().st_mtime + 86_400 * days,) * 2)
    return case.outcome(hit)


# --- damage -----------------------------------------------------------------------------------------------------------


def _damage(change: Callable[[Case, Path], None]) -> Callable[[Case], Outcome]:
    """Return an attack: a file that the step reads is damaged; what is told to be done about it is done."""

    def attack(case: Case) -> Outcome:
        path = case.random.choice(case.files(case.step.inputs))
        artefact = _artefact(path)
        times = path.stat()
        change(case, path)
        if path.exists():
            # A failing disk leaves the time stamps alone.
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        name = f"{artefact.relative_to(case.loop.directory.resolve())} ({path.name})"
        believed = [] if _noticed(case, artefact) else [f"{name} by segloop doctor"]
        code, output = case.attempt()
        _remove(artefact)
        unsaid = []
        if code == 0:
            # What was damaged may be a part that this step does not read; then its results are the right ones.
            ours = tuple(f"results/iter_1/{name}" for name in case.step.outputs)
            believed += [f"{name}: {one}" for one in same_results(case.whole, case.loop) if one.startswith(ours)]
        elif not _told(output, artefact, path):
            unsaid.append(f"{name}: {output[-1500:]}")
        anew = str(artefact.relative_to(case.loop.directory.resolve()))
        message = _error(output) if code else ""
        return case.outcome(True, anew, believed=believed, unsaid=unsaid, message=message)

    return attack


def _noticed(case: Case, artefact: Path) -> bool:
    found = examine_run(case.loop.directory, deep=True).damaged
    return any(Path(one.file).resolve().is_relative_to(artefact) for one in found)


def _artefact(path: Path) -> Path:
    """Return what is to be deleted when a file in it is damaged."""
    return next(
        (one for one in (path, *path.parents) if one.suffix == ".zarr" or one.name in ("model", "shards")), path
    )


def _told(output: str, artefact: Path, path: Path) -> bool:
    named = artefact.name in output and (path.name in output or artefact.suffix == ".zarr")
    return named and "rror" in output and any(word in output for word in ("elete", "again", "emove"))


def _remove(path: Path) -> None:
    integrity.unseal(path)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _flip(case: Case, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[case.random.randrange(len(content))] ^= 1 << case.random.randrange(8)
    path.write_bytes(content)


def _cut(case: Case, path: Path) -> None:
    path.write_bytes(path.read_bytes()[: case.random.randrange(path.stat().st_size)])


def _zeros(case: Case, path: Path) -> None:
    """Blocks of zeros, as a file system leaves them after a power cut."""
    content = bytearray(path.read_bytes())
    start = case.random.randrange(len(content))
    block = content[start : start + 4096]
    content[start : start + 4096] = bytes(len(block)) if any(block) else b"\1" * len(block)
    path.write_bytes(content)


def _lose(case: Case, path: Path) -> None:
    path.unlink()


def _damaged_answers(case: Case) -> Outcome:
    """Flip a bit in people's answers, or cut them: nobody can make them anew, so that they come back from a copy."""
    path = case.loop.directory / "data/answers/iter_1/answers.jsonl"
    whole = path.read_bytes()
    case.random.choice([_flip, _cut, _zeros])(case, path)
    believed = [] if _noticed(case, path.resolve()) else ["answers.jsonl by segloop doctor"]
    code, output = case.attempt()
    unsaid = [] if "answers.jsonl" in output and "error:" in output else [f"answers.jsonl: {output[-1500:]}"]
    believed += ["answers.jsonl"] if code == 0 else []
    path.write_bytes(whole)
    return case.outcome(True, believed=believed, unsaid=unsaid, message=_error(output))


# --- the table --------------------------------------------------------------------------------------------------------


def _outputs(loop: Loop, case: Case) -> list[Path]:
    return [loop.directory / "results" / "iter_1" / name for name in case.step.outputs]


def _size(path: Path) -> int:
    files = (one for one in path.rglob("*") if one.is_file()) if path.is_dir() else (path,)
    return sum(-(-one.stat().st_size // 4096) * 4096 for one in files)


def _error(output: str) -> str:
    """Return the line that is for people; errors of the rules themselves are told by Snakemake, over several lines."""
    lines = [line.strip() for line in output.splitlines()]
    wanted = (r"^error: ", r" is (damaged|incomplete|not a Zarr store)", "rror")
    return next((line for words in wanted for line in lines if re.search(words, line)), "")


def _no_faketime() -> str | None:
    return None if FAKETIME else "libfaketime is not installed (Debian: apt-get install faketime)"


_DAMAGED: Final = tuple(rule for rule, step in STEPS.items() if not step.people)
_KINDS: Final = (
    Fault("kill job", "SIGKILL of an entry script while it works", _kill_job),
    Fault(
        "kill at a write",
        "SIGKILL of an entry script at one of its operations on files, also in the middle of a store",
        _kill_at_an_operation(),
    ),
    Fault("kill in a checkpoint", "SIGKILL of a training that writes one", _kill_in_checkpoint, ("train_detector",)),
    Fault(
        "kill Snakemake",
        "SIGKILL of Snakemake at one of its operations on files",
        _kill_at_an_operation("snakemake"),
    ),
    Fault("kill any process", "SIGKILL of any process of the run at any moment", _kill_some_process),
    Fault("kill all", "SIGKILL of all processes of the run at once", _kill_all),
    Fault(
        "lose a worker",
        "SIGKILL of a Dask worker",
        _kill_worker,
        ("link_partitions",),
        {"clustering": {"batches": 2, "workers": 2}},
    ),
    Fault("second Snakemake", "another Snakemake in the same directory", _second_snakemake),
    Fault("disk full", "a full file system", _disk_full, STORES, small=True, without=cannot_mount),
    Fault("read only", "a file system that became read-only", _read_only, without=cannot_mount),
    Fault("bad image", "an image of the pool that ends too early", _bad_image, ("predict_shard",)),
    Fault("clock jump", "the clock jumps by 1, 30 or 400 days, to and fro", _clock_jump, without=_no_faketime),
    Fault("flipped bit", "one bit of a hand-over flips", _damage(_flip), _DAMAGED),
    Fault("cut file", "a file of a hand-over ends too early", _damage(_cut), _DAMAGED),
    Fault("zeros", "up to 4096 bytes of a hand-over become zeros", _damage(_zeros), _DAMAGED),
    Fault("lost file", "a file of a store or model is gone", _damage(_lose), (*STORES[1:], "annotate_oracle")),
    Fault(
        "damaged answers",
        "a bit flips, or bytes are cut or lost in people's answers",
        _damaged_answers,
        ("annotate_people",),
    ),
)

FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _KINDS}
SERVERS: Final = servers.FAULTS
