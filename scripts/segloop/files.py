"""Files and folders that are either whole or absent.

Everything is written under a temporary name beside its destination and renamed when complete, so that a killed job
leaves nothing that could be taken for a result (contract 2 of the architecture).
"""

import errno
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import yaml

from segloop import integrity
from segloop.errors import SegloopError
from segloop.integrity import sha256_file as sha256_file


def _temporary(path: Path) -> Path:
    # The process id keeps two writers of one file apart; the leading dot keeps both out of glob patterns.
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: str | Path, *, sealed: bool = False) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, it takes the place of `path`.

    Parameters
    ----------
    sealed
        Leave a checksum beside it (`segloop.integrity`): for what one step hands to another, and no person edits.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        digest = sha256_file(temporary) if sealed else None
        integrity.unseal(path)
        temporary.replace(path)
        if digest is not None:
            integrity.seal(path, digest)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a new temporary folder; when the block ends well, it takes the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_symlink() or path.exists():
            # Moved away whole: removing it in place could be cut off, and what is left be taken for a result.
            path.rename(path.with_name(f".{path.name}.tmp-old-{os.getpid()}"))
        temporary.rename(path)
    finally:
        remove_leftovers(path)


@contextmanager
def scratch_directory(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path` for work on it; it is gone after the block, or with the next work on `path`."""
    path = Path(path)
    name = path.with_name(f"{path.name}.scratch")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(name)
    folder = _temporary(name)
    folder.mkdir()
    try:
        yield folder
    finally:
        remove_leftovers(name)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left behind; a living writer's work stays."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        process = leftover.name.rpartition("-")[2]
        if process.isdigit() and int(process) != os.getpid() and Path(f"/proc/{process}").exists():
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def file_lock(path: str | Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock of the operating system on a file: shared with others, or alone; it ends with the process."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        lock(file, exclusive=exclusive, wait=True)
        yield


def lock(file: IO[str], *, exclusive: bool, wait: bool) -> bool | None:
    """Take a lock of the operating system on an open file.

    Returns
    -------
    Whether it was free; None where the file system knows no locks (Lustre mounted without `flock`).
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            return None
        raise
    return True


def write_json(path: str | Path, value: Any, *, sealed: bool = True) -> None:
    """Write `value` as JSON, whole or not at all; NaN is refused because JSON has none.

    Parameters
    ----------
    sealed
        Leave a checksum beside it; not for files that people edit or take away.
    """
    with atomic_file(path, sealed=sealed) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, allow_nan=False, indent=None if _is_bulky(value) else 1, ensure_ascii=False)
        file.write("\n")


def _is_bulky(value: Any) -> bool:
    # COCO files are read by programs, everything else also by people.
    return isinstance(value, list) or (isinstance(value, dict) and "annotations" in value)


def read_json(path: str | Path) -> Any:
    """Read a JSON file and compare it with its checksum, if it has one; an error names the file and the remedy."""
    path = Path(path)
    try:
        return json.loads(integrity.read_checked(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise SegloopError(f"{path.absolute()} does not exist. Check the path in the configuration.") from None
    except OSError as error:
        raise SegloopError(
            f"{path.absolute()} cannot be read ({error}). Check the path in the configuration."
        ) from None
    except (ValueError, RecursionError) as error:
        # Not JSON, not UTF-8, a number of thousands of digits, or brackets without end.
        raise SegloopError(f"{path} is not valid JSON ({error}). Write or download it again.") from None


DOCUMENT_SCHEMA: Final = 1
"""Of the JSON files that steps of the loop hand to each other; a file that says nothing is of the first version."""


def read_document(path: str | Path) -> Any:
    """Read a JSON file that a step of the loop wrote; see `read_json`.

    Raises
    ------
    SegloopError
        If it was written by a segloop of another schema version.
    """
    value = read_json(path)
    for key in ("schema_version", "schema"):
        found = value.get(key, DOCUMENT_SCHEMA) if isinstance(value, dict) else DOCUMENT_SCHEMA
        if found != DOCUMENT_SCHEMA:
            raise SegloopError(other_version(path, found, DOCUMENT_SCHEMA))
    return value


def other_version(where: object, found: object, known: int) -> str:
    """Return what to tell a person about a file of another schema version, and what to do."""
    return (
        f"{where} has schema version {found!r}, this segloop reads version {known}. Go on with the segloop that wrote "
        "it (run.json of the run names it), or delete the file and run the same command again to have it made anew."
    )


YAML_VALUES: Final = 1_000_000
"""A YAML file may stand for so many values, those that its aliases repeat included."""


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML of plain values; nothing in it is executed, and no alias makes it endless or huge.

    Parameters
    ----------
    where
        What the text is, for the message.

    Raises
    ------
    SegloopError
        If it is no YAML, holds other than plain values, or stands for more than `YAML_VALUES` of them.
    """
    try:
        value = yaml.safe_load(text)
        count = _count(value, {})
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # PyYAML raises all of these for dates that are none, numbers without digits, keys that cannot be keys.
        raise SegloopError(f"{where} is not valid YAML: {error}") from None
    if count > YAML_VALUES:
        raise SegloopError(f"{where} stands for more than {YAML_VALUES:,} values by its aliases. Write them out.")
    return value


def _count(value: Any, known: dict[int, int]) -> int:
    """Return the number of values below one, each as often as it is reached; raise where one holds itself."""
    if not isinstance(value, dict | list | set | tuple):
        return 1
    if id(value) in known:
        if known[id(value)] == 0:
            raise ValueError("a value holds itself")
        return known[id(value)]
    known[id(value)] = 0
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


def read_yaml(path: str | Path, what: str = "") -> Any:
    """Read a YAML file; see `parse_yaml`.

    Parameters
    ----------
    what
        What the file is, for the message, such as "the configuration".
    """
    where = f"{what} {path}".strip()
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SegloopError(f"{where} does not exist") from None
    except (OSError, ValueError) as error:
        raise SegloopError(f"{where} cannot be read ({error})") from None
    return parse_yaml(text, where)


def fingerprint(path: str | Path) -> str:
    """Return text that changes when a file or folder is replaced: size and time of change, or "missing"."""
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path}: missing"
    return f"{path}: {status.st_size} bytes, {status.st_mtime_ns} ns"
