"""What is damaged in a run directory: every store, hand-over, model, database and file of answers is looked at."""

import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from segloop import integrity
from segloop.annotation.people import COMPLETE, check_complete
from segloop.config import AnnotationConfig, load
from segloop.data.doctor.findings import Finding, Status
from segloop.errors import SegloopError
from segloop.files import read_json, read_yaml
from segloop.progress import RunFiles
from segloop.runs import START, iterations_with
from segloop.store.arrays import Store

DATABASE: Final = "labelmelite.sqlite"
MADE: Final = ("resources", "results", "checkpoints")
"""Folders of a run that the workflow fills: what is damaged there is made anew."""

_MODEL: Final = "model.json"
_WEIGHTS: Final = "weights.pt"
_RESTORE: Final = "restore it from a copy (docs/labelling.md): nobody can make people's answers anew"
_OF_PEOPLE: Final = ("files of answers", "databases")
_HANDED_OVER: Final = frozenset({".parquet", ".json", ".npy", ".jsonl", ".pt"})


@dataclass
class RunExamination:
    """All that was found in a run directory."""

    path: Path
    deep: bool
    counts: dict[str, int] = field(default_factory=dict)
    """How many of each kind were looked at."""
    missing: list[str] = field(default_factory=list)
    """Steps of complete iterations whose results are gone; nothing misses them until they are needed again."""
    damaged: list[Finding] = field(default_factory=list)
    """What must not be used; `repair` says what to do."""
    without: list[str] = field(default_factory=list)
    """Files and stores that carry no checksum, or not of every byte; what could be read of them was."""

    @property
    def status(self) -> Status:
        """Whether the run is whole, whole but for what can be made anew, or has lost answers."""
        if any(one.repair == _RESTORE for one in self.damaged):
            return Status.UNUSABLE
        return Status.USABLE_IN_PART if self.damaged else Status.USABLE

    def record(self) -> dict[str, Any]:
        """Return all of it for a JSON file."""
        found = [{"file": one.file, "reason": one.reason, "repair": one.repair} for one in self.damaged]
        return {
            "schema_version": 1,
            "path": str(self.path),
            "deep": self.deep,
            "status": int(self.status),
            "counts": self.counts,
            "damaged": found,
            "missing": self.missing,
            "without_checksum": self.without,
        }

    def text(self, most: int | None) -> str:
        """Return all of it in words; of files without a checksum at most that many are listed, None: all."""
        looked = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items()) or "nothing"
        lines = [f"{self.path}: {looked}"]
        lines += [f"damaged: {one.reason}\n  what to do: {one.repair}" for one in self.damaged]
        lines += [f"missing: {what}" for what in self.missing]
        shown = self.without if most is None else self.without[:most]
        lines += [f"without a checksum of every byte: {name}" for name in shown]
        if len(shown) < len(self.without):
            lines.append(f"without a checksum: {len(self.without) - len(shown):,} more; --all lists them")
        how = "every byte was read" if self.deep else "sizes and heads were read; --deep reads every byte"
        lines.append(f"{len(self.damaged):,} damaged; {how}")
        return "\n".join(lines) + "\n"


def examine_run(run: Path, *, deep: bool) -> RunExamination:
    """Look for damage in a run directory; nothing is changed.

    Parameters
    ----------
    deep
        Read every byte: chunks of stores, files with a checksum, weights, events of the database. Else stores are
        opened, which compares the sizes of their files and the checksum of their attributes, and databases are asked
        whether their pages fit together.

    Raises
    ------
    SegloopError
        If the folder holds no run.
    """
    if not any((run / folder).is_dir() for folder in MADE):
        raise SegloopError(f"{run.absolute()} holds no run: none of the folders {', '.join(MADE)} is there.")
    found = RunExamination(run, deep)
    parts = [*_parts(run)]
    for kind, path in tqdm(parts, desc=str(run), unit="file", disable=None):
        found.counts[kind] = found.counts.get(kind, 0) + 1
        try:
            whole = _LOOK[kind](path, deep)
        except (SegloopError, OSError) as error:
            reason = str(error) if isinstance(error, SegloopError) else f"{path} cannot be read ({error})."
            found.damaged.append(Finding(str(path), "", reason, _remedy(run, kind, path)))
        else:
            if whole is None:
                found.without.append(str(path))
    found.missing = list(_missing(run))
    return found


def _remedy(run: Path, kind: str, path: Path) -> str:
    if kind in _OF_PEOPLE:
        return _RESTORE
    # A folder that is an output of one rule as a whole.
    whole = next((one for one in (path, *path.parents) if one.name in ("model", "shards")), path)
    # Snakemake does not miss what nothing but finished steps needed, so that the target has to be named.
    target = shlex.quote(str(whole.relative_to(run)))
    return (
        f"rm -r {shlex.quote(str(whole))}, then run with `-- {target}`, which makes it anew, and once more without, "
        "which makes anew what was made of it"
    )


def _missing(run: Path) -> Iterator[str]:
    config = _config(run)
    try:
        files = RunFiles(run, load(config)) if config is not None else None
    except SegloopError:
        # A configuration of another version: what its steps wrote is not known.
        files = None
    if files is None:
        return
    for iteration, _ in iterations_with(run, "summary.json").items():
        for step in files.steps(iteration):
            done, parts = len(files.complete(step, iteration)), step.parts(files.config)
            if done < parts:
                where = step.patterns(files.config, f"results/iter_{iteration}")[0]
                yield f"{where}: {done} of {parts} parts of the step {step.name} are there"


def _parts(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield what a run consists of, with its kind."""
    stack = [run / folder for folder in MADE if (run / folder).is_dir()]
    while stack:
        for path in sorted(stack.pop().iterdir()):
            if path.suffix == ".zarr" and path.is_dir():
                yield "stores", path
            elif path.is_dir() and path.name not in ("figures", "logs") and not path.name.startswith("."):
                stack.append(path)
            elif path.name == _WEIGHTS:
                yield "models", path
            elif path.is_file() and not path.name.startswith(".") and _is_handed_over(path):
                yield "files", path
    answers = _answers_root(run)
    for path in sorted(answers.glob("iter_*/answers.jsonl")):
        yield "files of answers", path
    for path in sorted(answers.rglob(DATABASE)):
        yield "databases", path


def _is_handed_over(path: Path) -> bool:
    return path.suffix in _HANDED_OVER or integrity.checksum_path(path).exists()


def _answers_root(run: Path) -> Path:
    try:
        return run / str((_config(run) or {})["annotation"]["answers_root"])
    except (KeyError, TypeError):
        return run / AnnotationConfig().answers_root


def _config(run: Path) -> dict[str, Any] | None:
    """Return the configuration of a run from where it is written first; None where it cannot be read."""
    for path, read in ((run / START, read_json), (run / "results" / "config.yaml", read_yaml)):
        try:
            content = read(path)
            config: Any = content["config"] if path.name == START.name else content
        except (SegloopError, OSError, KeyError, TypeError, ValueError):
            continue
        if isinstance(config, dict):
            return config
    return None


def _store(path: Path, deep: bool) -> bool | None:
    store = Store(path)
    if deep:
        store.verify()
    return True if store.checked else None


def _file(path: Path, deep: bool) -> bool | None:
    if not deep:
        return True if integrity.recorded(path) else None
    integrity.check(path)
    if integrity.recorded(path):
        return True
    read = _READ.get(path.suffix)
    if read is not None:
        read(path)
    return None


def _model(path: Path, deep: bool) -> bool:
    # Imported here: torch takes a second.
    from segloop.detection import model_files

    if deep:
        model_files.read_weights(path.parent)
    else:
        model_files.read_description(path.parent)
    return True


def _answers(path: Path, deep: bool) -> bool | None:
    from segloop.annotation.people import read_records

    check_complete(path)
    if deep:
        read_records(path)
    complete = path.with_name(COMPLETE)
    return True if complete.exists() and "answers_sha256" in read_json(complete) else None


def _database(path: Path, deep: bool) -> bool:
    from labelmelite import seals

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            connection.execute("BEGIN")
            seals.check(connection, path, whole=deep)
    except sqlite3.Error as error:
        raise SegloopError(f"{path} is damaged ({error}). Restore it from a copy.") from None
    return True


def _parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(path, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        raise SegloopError(f"{path} is not a readable Parquet file ({error}).") from None


_READ: Final[dict[str, Callable[[Path], Any]]] = {".json": read_json, ".parquet": _parquet}
_LOOK: Final[dict[str, Callable[[Path, bool], bool | None]]] = {
    "stores": _store,
    "models": _model,
    "files": _file,
    "files of answers": _answers,
    "databases": _database,
}
