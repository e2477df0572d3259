"""Make the run that tests/upgrade keeps: one iteration that a person answered, edited and redrawn, without weights.

Usage: python tests/upgrade/freeze.py FOLDER

The folder `frozen/1` was made by it with segloop 0.1.0, when all schema versions were 1, and stays as it is. A segloop
that raises a version keeps it, makes a folder `frozen/2` beside it, and says in the test what becomes of the older one.
"""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from labelmelite.loop.iteration import load_iteration
from labelmelite.loop.session import LoopSession
from labelmelite.loop.settings import LoopSettings
from labelmelite.store import FILE, Store
from segloop.data import masks

REPOSITORY = Path(__file__).resolve().parents[2]
CHANGES: dict[str, Any] = {
    "demo_data": {"seed_images": 10, "pool_images": 6, "validation_images": 3},
    "detector": {"detections_per_image": 6, "embedding_dim": 16},
    "training": {"steps": 60, "finetune_steps": 2},
    "annotation": {
        "annotator": "people",
        "n": 2,
        "answers_root": "answers",
        "hourly_wage": 18.0,
        "audit": {"questions": 4, "redraws": 2},
    },
    "loop": {"iterations": 1, "control": False, "upper_bound": False},
    "report": {"neighbour_queries": 1, "neighbours": 2, "gallery": 2},
}
LEFT_OUT = (
    "*.pt",
    "training_set.json",
    "validation_results.json",
    "losses.csv",
    ".snakemake_timestamp",
    "*.svg",
    "*.png",
    "*.html",
    "*.log",
    "figures",
    "*.lock",
    "data",
    "checkpoints",
)
"""Weights, pictures and pages, which nothing reads but people and torch, and what repeats other files."""


def main() -> None:
    """Run, answer, run on, and keep what others read."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        run.mkdir()
        config = Path(name) / "frozen.yaml"
        values = yaml.safe_load((REPOSITORY / "tests" / "tiny.yaml").read_text(encoding="utf-8"))
        config.write_text(yaml.safe_dump({key: _merged(values.get(key), CHANGES.get(key)) for key in values | CHANGES}))
        snakemake(run, config)
        answer(run)
        snakemake(run, config)
        redraw(run)
        keep(run, target)


def _merged(value: Any, change: Any) -> Any:
    return (
        value | change if isinstance(value, dict) and isinstance(change, dict) else value if change is None else change
    )


def snakemake(run: Path, config: Path) -> None:
    """Run the loop until it ends or waits for people."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "1"]
    command += ["--profile", str(REPOSITORY / "profiles" / "local"), "--configfile", str(config)]
    subprocess.run([*command, "--directory", str(run)], check=True)


def answer(run: Path) -> None:
    """Let one person answer all questions of iteration 1, and edit a mask."""
    iteration = load_iteration(run, 1)
    store = Store(run / "answers" / "labelmelite")
    session = LoopSession(iteration, store, LoopSettings(least_seconds=0.0, forecast=0))
    number = 0
    while not session.complete:
        task = session.next_task("ada", "questions", None, [])["task"]
        if task is None:
            session.wait()
            continue
        said = []
        for item in task["items"]:
            number += 1
            reply = "no" if number % 4 == 3 else "yes"
            reason = "bad_boundary" if reply == "no" else None
            said.append({"client_no": number, "item": item["id"], "reply": reply, "reason": reason, "seconds": 1.5})
        session.answer("ada", task["id"], "page", said)
        session.submit("ada", task["id"], 1000.0)
        session.wait()
        if number < 8:
            number = _draw(session, "edits", number)
    session.close()
    store.close()


def redraw(run: Path) -> None:
    """Redraw the sample of accepted masks."""
    store = Store(run / "answers" / "labelmelite")
    session = LoopSession(load_iteration(run, 1), store, LoopSettings(least_seconds=0.0, forecast=0))
    number = 1000
    while (later := _draw(session, "redraws", number)) > number:
        number = later
    session.close()
    store.close()


def _draw(session: LoopSession, kind: str, number: int) -> int:
    task = session.next_task("ada", kind, None, [])["task"]  # type: ignore[arg-type]
    if task is None:
        return number
    for item in task["items"]:
        number += 1
        shown = session.picture_of(session.book.item_tasks[item["id"]].items[item["id"]]).mask
        pixels = masks.decode(shown).copy()
        pixels[0, :3] = ~pixels[0, :3]
        drawn = {"after": masks.to_json(masks.encode(pixels)), "before": masks.to_json(shown), "seconds": 20.0}
        session.answer("ada", task["id"], "page", [{"client_no": number, "item": item["id"]} | drawn])
    session.submit("ada", task["id"], 1000.0)
    session.wait()
    return number


def keep(run: Path, target: Path) -> None:
    """Copy what is read by programs."""
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    for part in ("results", "resources", "answers"):
        shutil.copytree(run / part, target / part, ignore=ignored)
    (target / ".snakemake").mkdir()
    shutil.copy2(run / ".snakemake" / "segloop.start.json", target / ".snakemake")
    server = target / "answers" / "labelmelite"
    shutil.rmtree(server)
    server.mkdir()
    source = sqlite3.connect(run / "answers" / "labelmelite" / FILE)
    source.execute("VACUUM INTO ?", (str(server / FILE),))
    source.close()


if __name__ == "__main__":
    main()
