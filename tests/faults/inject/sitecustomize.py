"""Python runs this first in every process of a fault run: the chosen one kills itself at a chosen operation on a file.

SEGLOOP_FAULT is a JSON object: `process` (a piece of a command line: the name of an entry script, or "snakemake"),
`root` (the run directory), `number` (of the operation, from 1), `seconds` (between the operation and the kill, so that
it falls into the middle of a write) and `mark` (a file that is made just before, so that the harness knows, and so that
no other process does it again).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _arm(fault: dict[str, Any]) -> None:
    root, seen = fault["root"], 0

    def die() -> None:
        time.sleep(fault["seconds"])
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            counts = isinstance(arguments[2], int) and arguments[2] & _WRITES
        else:
            counts = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        if not counts or not _below(arguments[0], root):
            return
        seen += 1
        if seen == fault["number"]:
            Path(fault["mark"]).touch()
            if fault["seconds"]:
                import threading

                threading.Thread(target=die, daemon=True).start()
            else:
                die()

    sys.addaudithook(hook)


def _below(path: Any, root: str) -> bool:
    # Logs are open all the time and belong to nobody's results.
    try:
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # asks no file system, which would be one more event
    except TypeError:
        return False
    return name.startswith(root) and "/logs/" not in name


if "SEGLOOP_FAULT" in os.environ:
    _fault = json.loads(os.environ["SEGLOOP_FAULT"])
    if any(word.endswith(_fault["process"]) for word in sys.orig_argv) and not Path(_fault["mark"]).exists():
        _arm(_fault)
