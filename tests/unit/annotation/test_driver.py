import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from segloop.annotation.answers import Answers, read_answers
from segloop.annotation.driver import annotate_oracle, annotate_people, policy_seed, read_records
from segloop.annotation.oracle import MATCH_SCHEMA
from segloop.annotation.policies import make_policy
from segloop.annotation.tables import write_table
from segloop.annotation.verdicts import ANSWERED, CLUSTER, DUPLICATE, read_verdicts
from segloop.annotation.world import build_world
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError
from segloop.store.index import write_index
from segloop.store.tree import write_tree
from segloop.workers import worker_map

CATEGORIES = [1] * 60 + [2] * 40 + [3] * 9 + [5]


@pytest.fixture
def stage(tmp_path, make_tree, make_world, make_index):
    """Write the inputs of an iteration; return the arguments of a driver, and the truth by prediction."""

    def build(categories=CATEGORIES, nulls=2, duplicates=3, seed=0):
        tree = make_tree(categories, seed, nulls=nulls)
        index = make_index(make_world(tree, categories), duplicates)
        iou = np.random.default_rng(seed).random(len(index)).astype(np.float32)
        # Category 1 is mostly good, the others are mixed.
        iou[(index.category == 1) & (iou > 0.05)] = 0.95
        ids = np.arange(1, len(index) + 1)
        columns = {"prediction": index.prediction, "iou": iou, "truth_id": ids, "matched_iou": iou, "matched_id": ids}
        table = pa.table(columns, schema=MATCH_SCHEMA.with_metadata({"t_iou": "0.8"}))
        write_table(tmp_path / "match.parquet", table)
        write_tree(tmp_path / "tree.zarr", tree)
        write_index(tmp_path / "index.zarr", index, {})
        arguments = {
            "tree": tmp_path / "tree.zarr",
            "index": tmp_path / "index.zarr",
            "truth_match": tmp_path / "match.parquet",
            "answers": tmp_path / "answers.parquet",
            "verdicts": tmp_path / "verdicts.parquet",
            "config": AnnotationConfig(policy="thesis", n=4, t_iou=0.8),
            "iteration": 1,
            "seed": 3,
        }
        return arguments, index, tree, iou > 0.8

    return build


POLICIES = [
    {"policy": "thesis"},
    {"policy": "thesis", "start": "cut:9", "reuse": True},
    {"policy": "thesis", "start": "top:3"},
    {"policy": "per_mask", "questions": 30},
]


@pytest.mark.parametrize("values", POLICIES)
def test_the_oracle_answers_and_every_prediction_has_a_verdict(stage, values):
    arguments, index, _, is_good = stage()
    config = AnnotationConfig(n=4, t_iou=0.8, **values)
    annotate_oracle(**arguments | {"config": config})
    table, verdicts = read_answers(arguments["answers"]), read_verdicts(arguments["verdicts"])
    assert np.array_equal(verdicts.prediction, index.prediction)
    asked = np.searchsorted(index.prediction, table.column("prediction").to_numpy())
    assert len(set(asked.tolist())) == len(asked)
    assert [reply == "yes" for reply in table.column("reply").to_pylist()] == is_good[asked].tolist()
    assert table.column("mask_key").to_pylist() == [key.tobytes() for key in index.mask_key[asked]]
    assert np.array_equal(verdicts.verdict[asked], np.where(is_good[asked], 1, -1))
    assert set(verdicts.reason[asked]) == {ANSWERED}
    assert verdicts.reason[-3:].tolist() == [DUPLICATE] * 3
    assert verdicts.verdict[-3:].tolist() == [1, -1, 1]
    assert len(set(table.column("answer_id").to_pylist())) == len(table)
    if config.policy == "per_mask":
        assert len(asked) == 30
        assert np.count_nonzero(verdicts.verdict[:-3]) == 30
    else:
        assert np.count_nonzero(verdicts.reason == CLUSTER) > 15
        assert verdicts.verdict.all()


@pytest.mark.parametrize("values", POLICIES)
def test_answers_replayed_give_the_verdicts_on_disk(stage, values):
    arguments, index, tree, _ = stage()
    config = AnnotationConfig(n=4, t_iou=0.8, **values)
    annotate_oracle(**arguments | {"config": config})
    verdicts, world = read_verdicts(arguments["verdicts"]), build_world(index, tree)
    log = Answers.from_table(read_answers(arguments["answers"]))
    decision = make_policy(config).step(world, log, policy_seed(3, 1))
    place = np.searchsorted(verdicts.prediction, world.prediction)
    assert decision.done
    assert np.array_equal(decision.verdict, verdicts.verdict[place])
    assert np.array_equal(decision.node, verdicts.node[place])


@pytest.mark.parametrize(("many", "reuse", "processes"), [([2], False, True), ([2, 3, 7], True, False)])
def test_any_number_of_workers_writes_the_same_bytes(stage, monkeypatch, many, reuse, processes):
    if not processes:
        # How work is dealt out can be seen without the seconds that processes take to start.
        monkeypatch.setattr("segloop.annotation.driver.worker_map", lambda workers, where: worker_map(1))
    arguments, *_ = stage()
    written = []
    for workers in (1, *many):
        config = AnnotationConfig(n=4, t_iou=0.8, workers=workers, start="top:6", reuse=reuse)
        annotate_oracle(**arguments | {"config": config})
        written.append((arguments["answers"].read_bytes(), arguments["verdicts"].read_bytes()))
    assert all(files == written[0] for files in written)


def test_seed_and_iteration_change_the_draws(stage):
    arguments, *_ = stage()
    asked = []
    for change in ({}, {"seed": 4}, {"iteration": 2}):
        annotate_oracle(**arguments | change)
        asked.append(read_answers(arguments["answers"]).column("prediction").to_pylist())
    assert asked[0] != asked[1]
    assert asked[0] != asked[2]


def test_answers_say_what_they_cost_and_which_nodes_counted_them(stage):
    arguments, *_ = stage()
    annotate_oracle(**arguments | {"config": AnnotationConfig(n=4, t_iou=0.8, hourly_wage=36.0)})
    records = read_answers(arguments["answers"]).to_pylist()
    assert {record["seconds"] for record in records} == {1.4}
    assert all(record["price"] == pytest.approx(0.014) for record in records)
    verdicts = read_verdicts(arguments["verdicts"])
    decided = set(verdicts.node[verdicts.reason == CLUSTER].tolist())
    counted = [node for record in records for node in record["counted_at"]]
    assert decided <= set(counted)
    assert all(counted.count(node) == 4 for node in decided)
    # Rounds begin at 0 and every node asks in one round.
    assert min(record["batch"] for record in records) == 0
    rounds = {(record["node"], record["batch"]) for record in records}
    assert len(rounds) == len({node for node, _ in rounds})
    assert max(batch for _, batch in rounds) > 0


@pytest.mark.parametrize(("categories", "nulls", "duplicates"), [([], 0, 0), ([], 2, 0), ([], 0, 2), ([4], 0, 0)])
def test_hardly_anything_to_ask(stage, categories, nulls, duplicates):
    arguments, index, _, _ = stage(categories, nulls, duplicates)
    annotate_oracle(**arguments)
    assert len(read_answers(arguments["answers"])) == len(categories) + nulls
    assert len(read_verdicts(arguments["verdicts"])) == len(index)


def test_a_replaced_tree_is_read_again(stage):
    first, *_ = stage([1] * 30)
    annotate_oracle(**first)
    second, index, _, _ = stage([1] * 50, seed=8)
    annotate_oracle(**second)
    assert len(read_verdicts(second["verdicts"])) == len(index) == 55


def test_inputs_that_do_not_belong_together(stage, make_tree, make_index, make_world):
    arguments, index, _, _ = stage()
    write_index(arguments["index"], replace(index, duplicate_of=np.zeros_like(index.duplicate_of)), {})
    with pytest.raises(SegloopError, match="do not belong together"):
        annotate_oracle(**arguments)
    write_index(arguments["index"], make_index(make_world(make_tree([1, 1]))), {})
    with pytest.raises(SegloopError, match="different predictions"):
        annotate_oracle(**arguments)


# --- people -----------------------------------------------------------------------------------------------------------


def recorded(arguments, change=lambda records: records):
    """Write the oracle's answers as a person's would lie on disk."""
    annotate_oracle(**arguments)
    records = read_answers(arguments["answers"]).to_pylist()
    for record in records:
        record["mask_key"] = record["mask_key"].hex()
        del record["counted_at"]
    path = arguments["answers"].with_name("answers.jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in change(records)))
    rest = {key: value for key, value in arguments.items() if key != "truth_match"}
    return rest | {"recorded": path}


def test_peoples_answers_reach_the_verdicts_they_led_to(stage):
    arguments, *_ = stage()
    people = recorded(arguments)
    answers, verdicts = arguments["answers"].read_bytes(), arguments["verdicts"].read_bytes()
    arguments["answers"].unlink()
    arguments["verdicts"].unlink()
    annotate_people(**people)
    assert arguments["verdicts"].read_bytes() == verdicts
    assert arguments["answers"].read_bytes() == answers


def test_missing_answers_are_counted_and_the_way_on_is_shown(stage):
    arguments, *_ = stage()
    people = recorded(arguments, lambda records: records[3:])
    with pytest.raises(SegloopError, match=r"leaves 3 questions of thesis open.*Add their answers"):
        annotate_people(**people)


def test_stale_answers_are_kept_and_decide_nothing(stage, caplog):
    arguments, index, _, _ = stage()
    strange = index.mask_key[0].copy()
    strange[0] ^= 255

    def change(records):
        by_id = {record["prediction"] for record in records}
        unasked = next(int(i) for i in index.prediction if int(i) not in by_id)
        return [*records, records[0] | {"answer_id": "s", "prediction": unasked, "mask_key": strange.tobytes().hex()}]

    people = recorded(arguments, change)
    verdicts = arguments["verdicts"].read_bytes()
    annotate_people(**people)
    assert "1 of" in caplog.text
    assert "stale" in caplog.text
    assert arguments["verdicts"].read_bytes() == verdicts
    assert read_answers(arguments["answers"]).column("answer_id").to_pylist()[-1] == "s"


def test_answers_of_another_run_are_matched_by_mask_key(stage):
    arguments, index, _, _ = stage()
    people = recorded(arguments, lambda records: [record | {"prediction": 7, "node": 10**6} for record in records])
    annotate_people(**people)
    known = read_answers(arguments["answers"])
    place = np.searchsorted(index.prediction, known.column("prediction").to_numpy())
    assert known.column("mask_key").to_pylist() == [key.tobytes() for key in index.mask_key[place]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[]", "line 2 is not a JSON object"),
        ("{}", "line 2 lacks answer_id, prediction"),
        ({"mask_key": "xyz"}, "line 2 is no answer record"),
        ({"mask_key": "00"}, "line 2 is no answer record"),
        ({"prediction": "many"}, "line 2 is no answer record"),
        ({"prediction": -1}, "line 2 is no answer record"),
        ({"seconds": "long"}, "line 2 is no answer record"),
        ({"reply": "maybe"}, "line 2: reply 'maybe'"),
        ({"purpose": "fun"}, "purpose 'fun' is unknown"),
    ],
)
def test_damaged_records_are_named_by_their_line(tmp_path, line, message):
    fine = {
        "answer_id": "a",
        "prediction": 5,
        "mask_key": "00" * 32,
        "annotator": "ann",
        "purpose": "decide",
        "reply": "yes",
    }
    text = line if isinstance(line, str) else json.dumps(fine | line)
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(fine) + "\n" + text + "\n")
    with pytest.raises(SegloopError, match=message):
        read_records(path)


def test_a_missing_file_of_answers(tmp_path):
    with pytest.raises(SegloopError, match="cannot be read"):
        read_records(tmp_path / "answers.jsonl")
