"""What benchmarks share: the words for this machine and where their pages go."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from segloop.files import write_json
from segloop.running import run_workflow
from segloop.runs import versions

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = REPOSITORY / "docs" / "benchmarks"
PROFILE = str(REPOSITORY / "profiles" / "local")


def machine() -> str:
    """Return the size of this machine in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB of memory, no GPU used"


def run(values: dict[str, Any], directory: Path, targets: Sequence[str] = (), *, report: bool = False) -> None:
    """Write a configuration into a run directory and run the workflow there, to its end or to some targets."""
    directory.mkdir(parents=True, exist_ok=True)
    configfile = directory / "config.yaml"
    configfile.write_text(yaml.safe_dump(values))
    if run_workflow(profile=PROFILE, configfile=configfile, directory=directory, arguments=targets, report=report):
        raise SystemExit(f"the run in {directory} failed; its messages stand above")


def heading(title: str, command: str, *software: str) -> list[str]:
    """Return the first lines of a page: what repeats it, on what it ran."""
    known = versions()
    used = ", ".join(f"{name} {known.get(name) or metadata.version(name)}" for name in ("python", *software))
    return [f"# {title}", "", f"Command: `{command}`. Machine: {machine()}. Versions: {used}.", ""]


def publish(name: str, lines: list[str], record: dict[str, Any], folder: Path = OUTPUT) -> None:
    """Write NAME.md and NAME.json into docs/benchmarks or another folder, and print the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", {"machine": machine(), "versions": versions(), **record}, sealed=False)
    page = "\n".join(lines) + "\n"
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)
