import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segloop.annotation.answers import Answers, read_answers
from segloop.annotation.certificates import read_certificates
from segloop.annotation.driver import annotate_oracle, annotate_people
from segloop.annotation.oracle import MATCH_SCHEMA
from segloop.annotation.policies import make_policy
from segloop.annotation.quality import claimed_precision
from segloop.annotation.recorded import policy_seed
from segloop.annotation.tables import write_table
from segloop.annotation.verdicts import ANSWERED, CLUSTER, DUPLICATE, read_verdicts
from segloop.annotation.world import build_world
from segloop.config import AnnotationConfig, AuditConfig, OracleConfig
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.store.index import read_index, write_index
from segloop.store.reduced import Reduced, write_reduced
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
        components = np.random.default_rng(seed).normal(size=(tree.n, 4)).astype(np.float16)
        write_reduced(tmp_path / "reduced.zarr", Reduced(tree.row_id, components, {}))
        arguments = {
            "tree": tmp_path / "tree.zarr",
            "index": tmp_path / "index.zarr",
            "reduced": tmp_path / "reduced.zarr",
            "truth_match": tmp_path / "match.parquet",
            "answers": tmp_path / "answers.parquet",
            "verdicts": tmp_path / "verdicts.parquet",
            "certificates": tmp_path / "certificates.json",
            "annotators": tmp_path / "annotators.json",
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
        config = AnnotationConfig(policy="thesis", n=4, t_iou=0.8, workers=workers, start="top:6", reuse=reuse)
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
    annotate_oracle(**arguments | {"config": AnnotationConfig(policy="thesis", n=4, t_iou=0.8, hourly_wage=36.0)})
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


# --- people who err ---------------------------------------------------------------------------------------------------

NOISE = {"annotators": 4, "error_rate": 0.15, "bias": 0.5, "other_rate": 0.05, "seconds_spread": 0.5}


def noisy(policy="thesis", votes=3, **more):
    audit = AuditConfig(questions=25, votes=votes)
    oracle = OracleConfig(**NOISE, reasons={"partial": 1, "wrong_class": 1})
    values = {"policy": policy, "n": 4, "t_iou": 0.8, "oracle": oracle, "audit": audit, "gold": 5, "repeats": 7}
    return AnnotationConfig(**values | more)


def test_noise_is_the_same_for_any_number_of_workers(stage, monkeypatch):
    monkeypatch.setattr("segloop.annotation.driver.worker_map", lambda workers, where: worker_map(1))
    arguments, *_ = stage()
    written = []
    for workers in (1, 3):
        annotate_oracle(**arguments | {"config": noisy(start="top:6", workers=workers)})
        names = ("answers", "verdicts", "certificates", "annotators")
        written.append([arguments[name].read_bytes() for name in names])
    assert written[0] == written[1]


@pytest.mark.parametrize("policy", ["thesis", "score_audit", "per_mask"])
def test_every_vote_is_an_answer_and_the_replay_of_all_gives_the_same(stage, policy):
    arguments, *_ = stage([1] * 150 + [2] * 50)
    config = noisy(policy, questions=60)
    people = recorded(arguments | {"config": config})
    written = {name: arguments[name].read_bytes() for name in ("answers", "verdicts")}
    truth = gold_file(arguments)
    claims = read_certificates(arguments["certificates"])
    annotate_people(**people | {"gold": truth})
    assert {name: arguments[name].read_bytes() for name in written} == written
    assert read_certificates(arguments["certificates"]) == claims
    purposes = [record["purpose"] for record in read_answers(arguments["answers"]).to_pylist()]
    counted = [purpose for purpose in purposes if purpose not in ("gold", "repeat")]
    audits = purposes.count("audit")
    assert audits % 3 == 0
    questions = len(counted) - audits + audits // 3
    assert purposes.count("gold") == 3 * (questions // 5)
    assert purposes.count("repeat") == questions // 7
    assert len(set(read_answers(arguments["answers"]).column("answer_id").to_pylist())) == len(purposes)


def gold_file(arguments):
    """Write gold.json as the truth has it."""
    match, index = pq.read_table(arguments["truth_match"]), read_index(arguments["index"])
    good = match.column("iou").to_numpy() > np.float32(0.8)
    path = arguments["answers"].with_name("gold.json")
    keys = [key.tobytes().hex() for key in index.mask_key]
    path.write_text(json.dumps({key: "yes" if one else "no" for key, one in zip(keys, good, strict=True)}))
    return path


def test_votes_reasons_and_times_are_recorded(stage):
    arguments, *_ = stage()
    annotate_oracle(**arguments | {"config": noisy(hourly_wage=36.0)})
    records = read_answers(arguments["answers"]).to_pylist()
    assert {record["annotator"] for record in records} == {f"oracle_{number}" for number in range(4)}
    assert {record["reason"] for record in records if record["reply"] == "no"} == {"partial", "wrong_class"}
    assert {record["reason"] for record in records if record["reply"] != "no"} == {None}
    assert len({record["seconds"] for record in records}) == len(records)
    assert all(record["price"] == pytest.approx(record["seconds"] / 100) for record in records)
    assert all(record["counted_at"] == [] for record in records if record["purpose"] in ("gold", "repeat"))
    assert any(record["counted_at"] for record in records)


def test_what_annotators_get_wrong_lowers_what_is_claimed(stage):
    arguments, *_ = stage([1] * 200 + [2] * 200)
    audit = AuditConfig(questions=60)
    exact = AnnotationConfig(policy="score_threshold", threshold=0.1, audit=audit, gold=1)
    noise = exact.model_copy(update={"oracle": OracleConfig(annotators=3, error_rate=0.1)})
    found = {}
    for name, config in (("exact", exact), ("noise", noise)):
        annotate_oracle(**arguments | {"config": config})
        (one,) = read_certificates(arguments["certificates"])
        gold = read_json(arguments["annotators"])["gold"]
        assert one.false_yes == gold["upper"] > 0
        assert one.claimed == claimed_precision(one.lower, gold["upper"]) < one.lower
        assert one.delta + gold["delta"] == pytest.approx(audit.delta / 2)
        found[name] = gold
    assert (found["exact"]["wrong"], found["exact"]["asked"]) == (0, found["noise"]["asked"])
    assert found["noise"]["wrong"] > 0


def test_without_gold_answers_are_taken_for_the_truth(stage):
    arguments, *_ = stage()
    config = AnnotationConfig(policy="score_threshold", threshold=0.1, audit=AuditConfig(questions=20))
    annotate_oracle(**arguments | {"config": config})
    (one,) = read_certificates(arguments["certificates"])
    assert (one.false_yes, one.claimed) == (0.0, one.lower)
    assert read_json(arguments["annotators"])["gold"] is None


# --- when things go wrong ---------------------------------------------------------------------------------------------


def test_an_annotator_who_always_says_yes_leaves_no_claim(stage):
    arguments, *_ = stage()
    config = AnnotationConfig(policy="score_threshold", threshold=0.1, audit=AuditConfig(questions=30), gold=2)
    lied = recorded(arguments | {"config": config}, lambda log: [record | {"reply": "yes"} for record in log])
    annotate_people(**lied | {"gold": gold_file(arguments)})
    (one,) = read_certificates(arguments["certificates"])
    assert one.lower > 0.8
    assert (one.false_yes, one.claimed) == (1.0, 0.0)
    assert read_json(arguments["annotators"])["annotators"]["oracle"]["false_yes"]["low"] > 0.3


def test_contradicting_answers_lower_what_is_claimed(stage):
    arguments, *_ = stage()
    config = AnnotationConfig(policy="score_threshold", threshold=0.1, audit=AuditConfig(questions=30))

    def contradict(records):
        yes = [record for record in records if record["reply"] == "yes"][:8]
        others = [{"reply": "no", "annotator": "q", "answer_id": f"q{number}"} for number in range(len(yes))]
        return records + [record | other for record, other in zip(yes, others, strict=True)]

    people = recorded(arguments | {"config": config}, contradict)
    (before,) = read_certificates(arguments["certificates"])
    accepted = read_verdicts(arguments["verdicts"])
    annotate_people(**people)
    (after,) = read_certificates(arguments["certificates"])
    now = read_verdicts(arguments["verdicts"])
    assert (after.bad, after.asked) == (before.bad + 8, before.asked)
    assert after.claimed < before.claimed
    changed = np.flatnonzero(now.verdict != accepted.verdict)
    assert (len(changed), set(now.verdict[changed].tolist())) == (8, {0})


def test_an_audit_with_too_few_votes_is_open(stage):
    arguments, *_ = stage()
    people = recorded(
        arguments | {"config": noisy()}, lambda log: [one for one in log if one["annotator"] != "oracle_2"]
    )
    with pytest.raises(SegloopError, match=r"questions of thesis open\. Add their answers \(3 annotators for each"):
        annotate_people(**people)


def test_answers_survive_another_clustering_and_count(stage, make_tree):
    arguments, _, tree, _ = stage()
    config = AnnotationConfig(policy="thesis", n=4, t_iou=0.8)
    people = recorded(arguments | {"config": config})
    log = people["recorded"].read_bytes()
    told = pq.read_table(arguments["answers"]).to_pylist()
    other = make_tree(CATEGORIES, 0, nulls=2, caterpillar=True)
    write_tree(arguments["tree"], replace(other, row_id=tree.row_id, null_id=tree.null_id))
    with pytest.raises(SegloopError, match=r"leaves \d+ questions of thesis open"):
        annotate_people(**people)
    # The oracle answers what is still open, on the same mask keys; what was told before is not asked again.
    annotate_oracle(**arguments | {"config": config})
    more = read_answers(arguments["answers"]).to_pylist()
    lines = [record | {"mask_key": record["mask_key"].hex()} for record in more]
    known = {record["mask_key"] for record in told}
    fresh = [record for record, line in zip(lines, more, strict=True) if line["mask_key"] not in known]
    people["recorded"].write_bytes(log + "".join(json.dumps(record) + "\n" for record in fresh).encode())
    annotate_people(**people)
    kept = read_answers(arguments["answers"])
    assert {record["answer_id"] for record in told} <= set(kept.column("answer_id").to_pylist())
    verdicts = read_verdicts(arguments["verdicts"])
    for record in told:
        row = np.searchsorted(verdicts.prediction, np.uint64(record["prediction"]))
        assert verdicts.verdict[row] == (1 if record["reply"] == "yes" else -1)


def test_nothing_that_a_person_answered_is_lost(stage):
    """Stale, contradicting, corrected and repeated answers all stand in the table, and the log is never written."""
    arguments, *_ = stage()

    def change(records):
        first = records[0]
        stale = first | {"answer_id": "stale", "mask_key": "ab" * 32}
        corrected = first | {"answer_id": "corrected", "reply": "other", "reason": "not_part_of_cluster"}
        return [*records, stale, corrected, first | {"answer_id": "gold", "purpose": "gold"}, *records[:5]]

    people = recorded(arguments | {"config": AnnotationConfig(policy="per_mask", questions=30)}, change)
    log = people["recorded"].read_bytes()
    annotate_people(**people)
    kept = read_answers(arguments["answers"]).column("answer_id").to_pylist()
    assert kept == list(dict.fromkeys(json.loads(line)["answer_id"] for line in log.splitlines()))
    assert people["recorded"].read_bytes() == log


def test_times_without_a_price_are_paid_at_the_wage(stage):
    arguments, *_ = stage()
    people = recorded(arguments, lambda log: [record | {"price": None, "seconds": 3.6} for record in log])
    annotate_people(**people | {"config": arguments["config"].model_copy(update={"hourly_wage": 20.0})})
    assert set(read_answers(arguments["answers"]).column("price").to_pylist()) == {0.02}


@pytest.mark.parametrize("policy", ["certified", "score_audit", "propagate", "kmeans", "score_threshold"])
@pytest.mark.parametrize("questions", [1, 5])
def test_a_budget_smaller_than_the_audit_needs(stage, policy, questions):
    arguments, *_ = stage([1] * 120)
    audit = AuditConfig(questions=500, precision=0.95, enforce=True)
    config = AnnotationConfig(policy=policy, questions=questions, threshold=0.0, audit=audit, t_iou=0.8)
    annotate_oracle(**arguments | {"config": config})
    records, verdicts = read_answers(arguments["answers"]).to_pylist(), read_verdicts(arguments["verdicts"])
    if policy in ("certified", "score_audit"):
        assert len(records) <= questions
        assert not any(one.passed for one in read_certificates(arguments["certificates"]))
    answered = {record["prediction"] for record in records if record["reply"] == "yes"}
    unsure = (verdicts.verdict == 1) & (verdicts.reason != DUPLICATE) & (verdicts.reason != ANSWERED)
    passed = {one.certificate_id for one in read_certificates(arguments["certificates"]) if one.passed}
    names = [verdicts.certificate_ids[place] for place in verdicts.certificate[unsure].tolist()]
    assert set(names) <= passed
    own = verdicts.prediction[(verdicts.verdict == 1) & (verdicts.reason == ANSWERED)]
    assert set(own.tolist()) == answered


@pytest.mark.parametrize("policy", ["certified", "score_audit", "thesis", "iccv21", "propagate", "kmeans", "per_mask"])
def test_no_good_mask_at_all(stage, policy):
    arguments, *_ = stage([1] * 60 + [2] * 20)
    audit = AuditConfig(questions=20, enforce=True)
    config = AnnotationConfig(policy=policy, questions=50, audit=audit, t_iou=1.0)
    annotate_oracle(**arguments | {"config": config})
    verdicts = read_verdicts(arguments["verdicts"])
    assert not ((verdicts.verdict == 1) & (verdicts.reason != DUPLICATE)).any()
    assert all(one.claimed == 0 and not one.passed for one in read_certificates(arguments["certificates"]))
