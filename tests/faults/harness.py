"""One fault in one step of the tiny loop: a copy of the undisturbed run, the attack, the rerun, the comparison."""

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from segloop.data.doctor.run_folders import examine_run
from segloop.files import write_json

from ..loops import Loop, same_results

INJECT: Final = Path(__file__).with_name("inject")


@dataclass(frozen=True)
class Step:
    """A job of the first iteration: what it makes, and of which files."""

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    """Glob patterns of hand-overs: damage to any of them must be noticed."""
    people: bool = False
    """Whether it needs a run in which people answered."""

    @property
    def target(self) -> str:
        return f"results/iter_1/{self.outputs[0]}"


_ANSWERED = ("verdicts.parquet", "answers.parquet", "certificates.json", "annotators.json")

STEPS: Final[Mapping[str, Step]] = {
    step.rule: step
    for step in (
        Step("train_detector", ("model",), ("training_set.json", "../iter_0/model/*")),
        Step(
            "predict_shard",
            ("predictions/0.zarr", "predictions/0.skipped.json"),
            ("../iter_0/model/*", "../../resources/pool/shards/0.parquet"),
        ),
        Step("index_predictions", ("index.zarr",), ("predictions/*.zarr",)),
        Step("partition_predictions", ("partitions.zarr",), ("index.zarr", "predictions/*.zarr")),
        Step("link_partitions", ("links/0.zarr",), ("partitions.zarr",)),
        Step("join_trees", ("tree.zarr",), ("partitions.zarr", "links/*.zarr")),
        Step("reduce_embeddings", ("reduced.zarr",), ("partitions.zarr",)),
        Step("annotate_oracle", _ANSWERED, ("tree.zarr", "index.zarr", "reduced.zarr", "truth_match.parquet")),
        Step("annotate_people", (*_ANSWERED, "edited.json"), ("tree.zarr", "index.zarr"), people=True),
        Step("collect_masks", ("collected.json",), ("index.zarr", "verdicts.parquet", "answers.parquet")),
        Step("merge_training_set", ("training_set.json",), ("collected.json", "../../resources/seed/train.json")),
        Step(
            "evaluate_detector",
            ("evaluation.json", "validation_results.json"),
            ("model/*", "../../resources/seed/val.json"),
        ),
        Step("summarise_iteration", ("summary.json",), ("evaluation.json", "ledger.json", "verdicts.parquet")),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What one fault did."""

    fault: str
    step: str
    seed: int
    hit: bool
    """Whether the fault happened; a process may be gone before it is killed."""
    message: str = ""
    """What was said to the person, where the step was refused."""
    answers: int = 0
    """Answers of people that were there, or were acknowledged."""
    lost: int = 0
    """Of these, the ones that are missing or differ after the rerun."""
    differing: tuple[str, ...] = ()
    """Differences from the undisturbed run after the rerun."""
    believed: tuple[str, ...] = ()
    """Damage that was taken for good: by a step whose results then differ, or by `segloop doctor`."""
    unsaid: tuple[str, ...] = ()
    """Failures that were not told in words for people."""

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be."""
        return [
            *(f"lost: {self.lost} answers" for _ in range(self.lost > 0)),
            *(f"differs: {line}" for line in self.differing),
            *(f"taken for good: {line}" for line in self.believed),
            *(f"not told: {line}" for line in self.unsaid),
        ]


@dataclass
class Case:
    """A copy of the run in which one step is to be done again, under attack."""

    whole: Loop
    """The undisturbed run; for steps after people, the one in which they answered."""
    loop: Loop
    step: Step
    seed: int
    random: random.Random

    def output(self, name: str) -> Path:
        return self.loop.directory / "results" / "iter_1" / name

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        loop = self.loop if env is None else replace(self.loop, env={**self.loop.env, **env})
        return loop.start(self.step.target, *arguments)

    def attempt(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run the step and return its status and what was said."""
        with self.start(*arguments, env=env) as process:
            output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def end(self, process: subprocess.Popen[str]) -> str:
        """Wait for an attacked Snakemake and for whatever it leaves behind."""
        output, _ = process.communicate(timeout=300)
        return output

    def files(self, patterns: tuple[str, ...]) -> list[Path]:
        """Return the hand-overs that match, files inside of stores included; not what only people read."""
        found = []
        for pattern in patterns:
            for path in sorted((self.loop.directory / "results" / "iter_1").glob(pattern)):
                found += _files(path) if path.is_dir() else [path]
        kept = [path.resolve() for path in found if path.name not in ("losses.csv", "skipped.json")]
        assert kept, f"nothing matches {patterns}"
        return [path for path in kept if path.stat().st_size and not path.name.startswith(".")]

    def outcome(self, hit: bool, *targets: str, **facts: Any) -> Outcome:
        """Run the step, and further targets, without a fault, and compare everything with the undisturbed run."""
        status, output = self.attempt(*targets)
        facts = {"answers": 0, "lost": 0, "believed": (), "unsaid": (), "message": "", **facts}
        differing = [] if status == 0 else [f"the rerun ended with status {status}: {output[-3000:]}"]
        if status == 0:
            differing += same_results(self.whole, self.loop)
            # After all is mended nothing may look damaged.
            left = examine_run(self.loop.directory, deep=True).damaged
            differing += [f"doctor finds damage where there is none: {one.reason}" for one in left]
        total, lost = lost_answers(self.whole, self.loop)
        facts["answers"] += total
        facts["lost"] += lost
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        return Outcome("", self.step.rule, self.seed, hit, differing=tuple(differing), **facts)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def prepare(undisturbed: Loop, answered: Loop, rule: str, seed: int, folder: Path, **changes: Any) -> Case:
    """Copy the run as it was just before a step."""
    step = STEPS[rule]
    whole = answered if step.people else undisturbed
    if step.people:
        changes = {**PEOPLE, **changes}
    loop = whole.copy(folder / "run", **changes)
    loop.remove(*(f"results/iter_1/{name}" for name in step.outputs))
    return Case(whole, loop, step, seed, random.Random(seed))


PEOPLE: Final[Mapping[str, Any]] = {
    "annotation": {"annotator": "people"},
    "loop": {"iterations": 1, "control": False, "upper_bound": False},
}


def make_answered(undisturbed: Loop, folder: Path) -> Loop:
    """Return a run in which people gave the oracle's answers, as files."""
    from segloop.annotation.answers import read_answers
    from segloop.files import sha256_file

    folder.mkdir(parents=True, exist_ok=True)
    loop = undisturbed.copy(folder / "run", **PEOPLE)
    table = read_answers(loop.directory / "results/iter_1/answers.parquet")
    answers = loop.directory / "data/answers/iter_1/answers.jsonl"
    answers.parent.mkdir(parents=True)
    records = [record | {"mask_key": record["mask_key"].hex()} for record in table.to_pylist()]
    answers.write_text("".join(json.dumps(record) + "\n" for record in records))
    complete = {"schema": 1, "answers": len(records), "answers_sha256": sha256_file(answers)}
    write_json(answers.with_name("complete.json"), complete, sealed=False)
    loop.remove("results/iter_1/verdicts.parquet")
    loop.run("results/iter_1/verdicts.parquet")
    return loop


def lost_answers(whole: Loop, loop: Loop) -> tuple[int, int]:
    """Compare the answers of people one by one; return how many there were, and how many are missing or differ."""
    files = sorted((whole.directory / "data").rglob("answers.jsonl"))
    total = lost = 0
    for path in files:
        wanted = path.read_bytes().splitlines()
        other = loop.directory / path.relative_to(whole.directory)
        found = set(other.read_bytes().splitlines()) if other.exists() else set()
        total += len(wanted)
        lost += sum(line not in found for line in wanted)
    return total, lost


def descendants(process: int) -> Iterator[tuple[int, str]]:
    """Yield the processes below one, with their command lines."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    stack = [process]
    while stack:
        for child in parents.get(stack.pop(), []):
            stack.append(child)
            try:
                yield child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


def kill(process: int) -> bool:
    """Kill a process; return whether it was there."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of its own in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "segloop-faults", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def cannot_mount() -> str | None:
    """Return why no file system can be mounted here; None if one can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"this machine does not let root mount: {tried.stderr.strip()}"
