"""A run of an older segloop is read whole, and what a newer one wrote is refused by name.

`frozen/1` was made once by `freeze.py` and is never made again: it is what somebody has on disk who upgrades.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmelite.loop.iteration import configuration_of, load_iteration
from labelmelite.loop.session import LoopSession
from labelmelite.store import FILE, Store
from segloop.annotation.answers import Answers, read_answers
from segloop.annotation.certificates import read_certificates
from segloop.annotation.edits import edit_work, read_edited, read_edits
from segloop.annotation.oracle import read_truth_match
from segloop.annotation.people import read_records
from segloop.annotation.redraws import read_redraws
from segloop.annotation.verdicts import read_verdicts
from segloop.config import load_file
from segloop.data.pool import read_shard
from segloop.detection.model_files import read_description
from segloop.errors import SegloopError
from segloop.files import read_document, read_json
from segloop.reporting.separability import read_separability
from segloop.reporting.summaries import read_run
from segloop.store.arrays import SCHEMA_VERSION
from segloop.store.arrays import Store as Arrays
from segloop.store.index import read_index
from segloop.store.partitions import Partitions, read_links
from segloop.store.predictions import PredictionShard
from segloop.store.reduced import read_reduced
from segloop.store.tree import read_tree

FROZEN = Path(__file__).with_name("frozen") / "1"
Reader = Callable[[Path], Any]


def every_array(path: Path) -> None:
    """Read all arrays of a store."""
    kind = read_json(path / "zarr.json")["attributes"]["kind"]
    store = Arrays(path, kind)
    for name in {file.partition("/")[0] for file in store.attributes["files"]}:
        store.read(name)


def predictions(path: Path) -> None:
    shard = PredictionShard.open(path)
    assert len(shard.rles()) == len(shard.embeddings()) == len(shard.prediction) == len(shard)
    every_array(path)


def database(path: Path) -> None:
    store = Store(path.parent)
    try:
        assert store.read_now(lambda c: c.execute("SELECT count(*) FROM event").fetchone()[0]) > 3
    finally:
        store.close()


STORES: dict[str, Reader] = {
    "results/iter_1/predictions/*.zarr": predictions,
    "results/iter_1/index.zarr": read_index,
    "results/iter_1/tree.zarr": read_tree,
    "results/iter_1/reduced.zarr": read_reduced,
    "results/iter_1/partitions.zarr": Partitions,
    "results/iter_1/links/*.zarr": read_links,
}
TABLES: dict[str, Reader] = {
    "results/iter_1/answers.parquet": lambda path: Answers.from_table(read_answers(path)),
    "results/iter_1/verdicts.parquet": read_verdicts,
    "results/iter_1/truth_match.parquet": read_truth_match,
    "resources/pool/shards/*.parquet": read_shard,
}
DOCUMENTS: dict[str, Reader] = {
    "results/summary.json": read_run,
    "results/iter_*/model/model.json": lambda path: read_description(path.parent),
    "results/iter_*/certificates.json": read_certificates,
    "results/iter_*/edited.json": lambda path: (read_edited(path), edit_work(path)),
    "results/iter_*/separability.json": read_separability,
    "results/ledger.json": read_document,
    "results/iter_*/ledger.json": read_document,
    "results/iter_*/summary.json": read_document,
    "results/iter_*/quality.json": read_document,
    ".snakemake/segloop.start.json": lambda path: configuration_of(path.parents[1]),
}
LOGS: dict[str, Reader] = {
    "answers/iter_1/answers.jsonl": read_records,
    "answers/iter_1/edits.jsonl": read_edits,
    "answers/iter_1/redraws.jsonl": read_redraws,
}
OTHERS: dict[str, Reader] = {
    f"answers/labelmelite/{FILE}": database,
    "results/config.yaml": load_file,
    # COCO files, records for people, and what carries no version because it is a plain list or table.
    **dict.fromkeys(("resources/**/*.json", "results/**/*.json", "answers/iter_1/complete.json"), read_json),
    **dict.fromkeys(("results/**/*.md", "results/**/*.yaml"), lambda path: path.read_text()),
}


def found(pattern: str, run: Path = FROZEN) -> list[Path]:
    paths = sorted(run.glob(pattern))
    assert paths, f"the frozen run holds no {pattern}"
    return paths


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy, as readers of databases write beside them."""
    return Path(shutil.copytree(FROZEN, tmp_path / "run"))


def test_every_file_of_an_old_run_is_read(run: Path) -> None:
    read: set[Path] = set()
    for readers in (STORES, TABLES, DOCUMENTS, LOGS, OTHERS):
        for pattern, reader in readers.items():
            for path in found(pattern, run):
                reader(path)
                read |= {path, *path.rglob("*")}
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path not in read}
    assert {
        name for name in left if not name.startswith("answers/labelmelite/") and ".snakemake_timestamp" not in name
    } == set()


def test_people_go_on_with_an_old_iteration(run: Path) -> None:
    iteration = load_iteration(run, 1)
    store = Store(run / "answers" / "labelmelite")
    session = LoopSession(iteration, store)
    try:
        assert iteration.taken and session.complete
        assert len(session.book.records) == len(read_records(iteration.answers / "answers.jsonl")) > 0
        assert session.forest().roots()
    finally:
        session.close()
        store.close()


def refused(reader: Reader, path: Path, name: str) -> None:
    with pytest.raises(SegloopError, match="version") as error:
        reader(path)
    assert name in str(error.value), str(error.value)


@pytest.mark.parametrize("pattern", STORES)
def test_a_newer_store_is_refused(run: Path, pattern: str) -> None:
    path = found(pattern, run)[0]
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["schema_version"] = SCHEMA_VERSION + 1
    (path / "zarr.json").write_text(json.dumps(metadata))
    refused(STORES[pattern], path, path.name)


@pytest.mark.parametrize("pattern", TABLES)
def test_a_newer_table_is_refused(run: Path, pattern: str) -> None:
    path = found(pattern, run)[0]
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"segloop_schema": b"2"}), path)
    refused(TABLES[pattern], path, path.name)


@pytest.mark.parametrize("pattern", DOCUMENTS)
def test_a_newer_document_is_refused(run: Path, pattern: str) -> None:
    path = found(pattern, run)[0]
    content = json.loads(path.read_text())
    content["schema" if "schema" in content else "schema_version"] = 2
    path.write_text(json.dumps(content))
    refused(DOCUMENTS[pattern], path, path.name)


@pytest.mark.parametrize("pattern", LOGS)
def test_a_newer_line_of_a_log_is_refused(run: Path, pattern: str) -> None:
    path = found(pattern, run)[0]
    lines = path.read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | {"schema": 2})
    path.write_text("\n".join(lines) + "\n")
    refused(LOGS[pattern], path, f"{path.name}, line {len(lines)}")


def test_lines_that_name_no_version_are_of_the_first(run: Path) -> None:
    path = found("answers/iter_1/answers.jsonl", run)[0]
    lines = [{k: v for k, v in json.loads(line).items() if k != "schema"} for line in path.read_text().splitlines()]
    before = [record | {"schema": None} for record in read_records(path)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_records(path) == before


def test_answers_of_a_newer_version_in_a_table_are_refused(run: Path) -> None:
    path = found("results/iter_1/answers.parquet", run)[0]
    table = pq.read_table(path)
    place = table.schema.get_field_index("schema")
    column = pa.array([2] * len(table), pa.int32())
    pq.write_table(table.set_column(place, table.schema.field(place), column), path)
    refused(read_answers, path, path.name)


def test_a_newer_database_is_refused(run: Path) -> None:
    path = run / "answers" / "labelmelite" / FILE
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    refused(database, path, path.name)


def test_the_frozen_run_is_small() -> None:
    assert sum(path.stat().st_size for path in FROZEN.rglob("*") if path.is_file()) < 450_000
