"""Checksums of single files: the SHA-256 of a file's bytes lies beside it, in a hidden file.

`.NAME.sha256` beside `NAME` has the form of the program sha256sum, so that `sha256sum -c` reads it, too. A file without
one is read as it is: an older segloop wrote it, a person did, or its writer was killed after the rename. The writer
removes the old checksum before the rename and writes the new one after it, so that no kill leaves a pair that differs.
Stores carry their checksums inside (`segloop.store.arrays`).
"""

import hashlib
import time
from pathlib import Path

from segloop.errors import SegloopError

_PAUSE = 0.2
"""Seconds after which a pair that differs is looked at again: another process may just be replacing it."""


def checksum_path(path: str | Path) -> Path:
    """Return where the checksum of a file lies."""
    path = Path(path)
    return path.with_name(f".{path.name}.sha256")


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: str | Path, digest: str | None = None) -> None:
    """Write the checksum of a file that is complete; `digest` is its SHA-256, where it is known already."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.sha256.tmp")
    temporary.write_text(f"{digest or sha256_file(path)}  {path.name}\n", encoding="utf-8")
    temporary.replace(checksum_path(path))


def unseal(path: str | Path) -> None:
    """Remove the checksum of a file that is about to be replaced."""
    checksum_path(path).unlink(missing_ok=True)


def recorded(path: str | Path) -> str | None:
    """Return the checksum that lies beside a file; None without one. An empty one, as after a power cut, is none."""
    try:
        text = checksum_path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.split(" ", 1)[0].strip() if text.strip() else None


def is_whole(path: str | Path) -> bool | None:
    """Return whether a file has the bytes that were written; None where no checksum tells."""
    for again in (True, False):
        wanted = recorded(path)
        if wanted is None:
            return None
        if sha256_file(path) == wanted:
            return True
        if again:
            time.sleep(_PAUSE)
    return False


def check(path: str | Path) -> None:
    """Refuse a file whose bytes are not those that were written.

    Raises
    ------
    SegloopError
        If its checksum differs; the message names the file and what to do. A file that is missing passes: whoever
        reads it says so.
    """
    path = Path(path)
    if path.is_file() and is_whole(path) is False:
        raise damaged(path)


def read_checked(path: str | Path) -> bytes:
    """Return the bytes of a file; they are hashed as they were read, so that nothing is read twice.

    Raises
    ------
    SegloopError
        If its checksum differs.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    data = path.read_bytes()
    wanted = recorded(path)
    if wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
        check(path)
        data = path.read_bytes()
    return data


def damaged(path: Path) -> SegloopError:
    """Return what is said about a file with other bytes than were written."""
    return SegloopError(
        f"{path} is damaged: its bytes are not those that were written (their SHA-256 lies in "
        f"{checksum_path(path).name} beside it). Delete both and run again with the file as target (`-- FILE`), which "
        "makes it anew; and once more without, for what was made of it. If you changed "
        "it on purpose, delete the checksum alone."
    )
