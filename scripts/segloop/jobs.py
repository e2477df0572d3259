"""What every job of the workflow shares: its log, its errors, and its end when Snakemake is gone."""

import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segloop.errors import SegloopError

logger = logging.getLogger("segloop")


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run the body of an entry script: log to the rule's log file and report errors to a person.

    Parameters
    ----------
    snakemake
        The object Snakemake hands to a script; only `log` is read.

    Raises
    ------
    SystemExit
        With status 1 after a `SegloopError`, or when the disk is full, read-only or broken; the message then stands
        in the log and on the terminal, without a traceback. Any other exception is logged with its traceback and
        passes on.
    """
    log = Path(str(snakemake.log[0]))
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    end_with_snakemake()
    try:
        yield
    except Exception as error:
        known = error if isinstance(error, SegloopError) else _of_the_disk(error)
        if known is None:
            logger.exception("unexpected error")
            raise
        logger.error("%s", known)
        print(f"error: {known}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        logger.removeHandler(handler)
        handler.close()


def _of_the_disk(error: BaseException | None) -> SegloopError | None:
    """Return what is wrong with a disk as a message for people; None if something else is wrong."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SegloopError(
                f"no room is left for {error.filename or 'a file'} of this job ({error.strerror}; run directory: "
                f"{Path.cwd()}). Free some, choose another --directory, or let older iterations keep less "
                "(retention.embeddings, retention.low_scores)."
            )
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EIO):
            return SegloopError(
                f"{error.filename or 'a file of this job'} cannot be read or written ({error.strerror}; run directory: "
                f"{Path.cwd()}). Have the disk looked at, or copy the run to another one, then run again."
            )
        error = error.__cause__ or error.__context__
    return None


def end_with_snakemake(seconds: float = 1.0) -> None:
    """End this process soon after the Snakemake process that started it was killed.

    Without this a job outlives a killed Snakemake, and the rerun starts a second copy beside it.
    """
    ancestor = _snakemake_ancestor()
    if ancestor is None:
        return

    def watch() -> None:
        while _start_time(ancestor[0]) == ancestor[1]:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-snakemake", daemon=True).start()


def _snakemake_ancestor() -> tuple[int, str] | None:
    process = os.getppid()
    while process > 1:
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            status = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return None
        if any(Path(os.fsdecode(word)).name == "snakemake" for word in command[:3]):
            return process, _start_time(process) or ""
        process = int(status.rpartition(")")[2].split()[1])
    return None


def _start_time(process: int) -> str | None:
    # A process id may be given again; together with its start time it is unique. A zombie counts as gone.
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def existing(path: Any) -> Path | None:
    """Return a path that a parameter names, or None where there is nothing, or nobody named one."""
    return Path(path) if path and Path(path).exists() else None


def optional(path: Any) -> Path | None:
    """Return an input that a rule may lack: a path, or None where the input function gave an empty list."""
    return Path(str(path)) if str(path) else None
