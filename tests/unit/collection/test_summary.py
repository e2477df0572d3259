import json
import math
from dataclasses import replace

import numpy as np
import pytest

from segloop.annotation.certificates import fixed_certificate, write_certificates
from segloop.annotation.oracle import match_truth
from segloop.annotation.quality import claim
from segloop.annotation.verdicts import REASONS, Verdicts, write_verdicts
from segloop.collection.collect import collect_masks
from segloop.collection.summary import certified, summarise_iteration, summarise_run, truth_recall
from segloop.config import AnnotationConfig, LoopConfig
from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.store.index import read_index

FIELDS = {
    "schema_version",
    "iteration",
    "predictions",
    "duplicates",
    "questions",
    "collected",
    "collected_total",
    "masks_per_question",
    "precision",
    "recall",
    "truth_recall",
    "ap",
    "ap50",
    "ap_per_category",
    "certificate",
    "certified",
    "quality",
    "reasons",
    "dollars",
    "machine_dollars",
    "value",
    "gpu_hours",
    "cpu_hours",
    "seconds",
    "control_ap",
}
GOOD, NEAR, FAR, OTHER = (0, 0, 10, 10), (0, 0, 10, 9), (12, 12, 16, 16), (0, 12, 5, 18)


def write(path, value):
    write_json(path, value)
    return path


def evaluation(folder, ap=0.25):
    return write(folder / "evaluation.json", {"ap": ap, "ap50": 0.5, "ap_per_category": {"disc": ap, "star": None}})


def ledger(folder, iteration=1, **known):
    people = {"questions": 4, "seconds": 6.0, "dollars": 0.04} if iteration else {"seconds": 0.0, "dollars": 0.0}
    machine = {"gpu_hours": 0.5, "cpu_hours": 2.0, "dollars": 3.0}
    return write(
        folder / "ledger.json", {"iteration": iteration, "people": people, "machine": machine, "value": None} | known
    )


@pytest.fixture
def asked(run, record):
    """One accepted good mask, one accepted bad, one rejected good, one duplicate; truth of four objects and a crowd."""
    run.pool([3, 12])
    rows = [(3, 1, 0.9, NEAR), (3, 1, 0.8, FAR), (12, 7, 0.9, OTHER), (12, 1, 0.7, GOOD)]
    store = run.store(1, 0, rows, [3, 12])
    path = run.index(1, [store])
    index = read_index(path)
    verdicts = run.verdicts(
        1, index.prediction, [1, 1, -1, 1], ["cluster", "answered", "cluster", "duplicate"], [4, -1, 5, -1]
    )
    truth = [record(1, 3, 1, GOOD), record(2, 12, 7, OTHER), record(3, 12, 1, GOOD), record(4, 12, 7, GOOD)]
    run.coco(run.truth, [3, 12], [*truth, record(5, 3, 1, FAR, iscrowd=1)])
    keys = [key.tobytes() for key in index.mask_key]
    answers = run.answers(
        1, [{"prediction": i, "mask_key": k} for i, k in zip(index.prediction.tolist(), keys, strict=True)]
    )
    match = run.folder / "truth_match.parquet"
    match_truth(index=path, predictions=[store], truth=run.truth, output=match, t_iou=0.8, workers=1)
    collected = run.folder / "iter_1/collected.json"
    collect_masks(
        index=path,
        predictions=[store],
        verdicts=verdicts,
        answers=answers,
        shards=run.shards,
        seed_set=run.seed_set,
        output=collected,
        iteration=1,
    )
    return {
        "iteration": 1,
        "evaluations": {"detector": evaluation(run.folder)},
        "ledger": ledger(run.folder),
        "output": run.folder / "summary.json",
        "index": path,
        "answers": answers,
        "verdicts": verdicts,
        "truth_match": match,
        "collected": [collected],
        "truth": run.truth,
        "annotation": AnnotationConfig(t_iou=0.8),
    }


def summary_of(arguments):
    summarise_iteration(**arguments)
    return json.loads(arguments["output"].read_text())


def test_an_iteration_in_figures(asked):
    found = summary_of(asked)
    assert found.keys() == FIELDS
    assert {key: found[key] for key in ("predictions", "duplicates", "questions", "collected", "collected_total")} == {
        "predictions": 4,
        "duplicates": 0,
        "questions": 4,
        "collected": 2,
        "collected_total": 2,
    }
    assert found["masks_per_question"] == 0.5
    # The last row is a duplicate by its verdict: it is good and accepted, and counts for neither.
    assert found["precision"] == 0.5
    assert found["recall"] == 0.5
    assert found["truth_recall"] == 0.25
    assert found["seconds"] == pytest.approx(6.0)
    assert found["dollars"] == pytest.approx(0.04)
    assert (found["ap"], found["ap_per_category"]) == (0.25, {"disc": 0.25, "star": None})
    assert (found["gpu_hours"], found["cpu_hours"], found["machine_dollars"]) == (0.5, 2.0, 3.0)
    assert (found["certificate"], found["control_ap"], found["reasons"], found["value"]) == (None, None, {}, None)


def test_without_truth_precision_and_recall_are_unknown(asked):
    found = summary_of(asked | {"truth": None, "truth_match": None})
    assert found.keys() == FIELDS
    assert [found[name] for name in ("precision", "recall", "truth_recall")] == [None] * 3
    assert found["collected"] == 2


def test_iteration_0_asks_nothing(run):
    output = run.folder / "summary.json"
    found = summary_of(
        {
            "iteration": 0,
            "evaluations": {"detector": evaluation(run.folder)},
            "ledger": ledger(run.folder, 0),
            "output": output,
            "collected": [],
            "annotation": AnnotationConfig(),
        }
    )
    assert found.keys() == FIELDS
    known = {
        "schema_version",
        "iteration",
        "ap",
        "ap50",
        "ap_per_category",
        "gpu_hours",
        "cpu_hours",
        "machine_dollars",
    }
    unknown = FIELDS - known
    assert {found[name] for name in unknown} == {None}


def test_no_question_and_nothing_accepted(asked, run):
    ids = read_index(asked["index"]).prediction
    run.verdicts(1, ids, [-1] * 4, ["cluster"] * 4, [4] * 4)
    run.answers(1, [])
    run.coco(asked["collected"][0], [], [])
    found = summary_of(asked)
    assert (found["questions"], found["masks_per_question"], found["precision"], found["recall"]) == (
        0,
        None,
        None,
        0.0,
    )
    assert found["truth_recall"] == 0.0


def test_files_of_different_iterations_are_refused(asked, run):
    run.verdicts(1, [1, 2], [1, 1], ["cluster"] * 2, [4] * 2)
    with pytest.raises(SegloopError, match="different predictions"):
        summary_of(asked)


def test_truth_is_found_once_however_often_it_is_collected(asked, run, record):
    path = asked["collected"][0]
    twice = [record(1, 3, 1, GOOD, score=0.9), record(2, 3, 1, NEAR, score=0.95), record(3, 12, 1, GOOD, score=0.1)]
    run.coco(path, [3, 12], twice)
    assert truth_recall([path, path], run.truth, 0.8) == 0.5
    run.coco(run.truth, [3], [record(1, 3, 1, GOOD, iscrowd=1)])
    assert truth_recall([path], run.truth, 0.8) is None


def test_reasons_are_counted(asked, run):
    ids = read_index(asked["index"]).prediction.tolist()
    given = [("no", "partial"), ("no", "partial"), ("no", None), ("other", None), ("other", "not_part_of_cluster")]
    records = [{"prediction": ids[0], "reply": reply, "reason": reason} for reply, reason in given]
    gold = {"prediction": ids[0], "reply": "no", "reason": "two_objects", "purpose": "gold"}
    found = summary_of(asked | {"answers": run.answers(1, [*records, gold])})
    assert found["reasons"] == {"partial": 2, "not_part_of_cluster": 2}


def test_what_audits_show_is_summarised(asked, run):
    numbers = {"known_good": 10, "unknown": 500, "asked": 100, "bad": 2, "target": 0.9, "delta": 0.05}
    one = fixed_certificate(certificate_id="1:all", category=None, **numbers)
    path = run.folder / "certificates.json"
    write_certificates(path, claim((one,), 0.1))
    (found,) = summary_of(asked | {"certificates": path})["certificate"]
    assert found["claimed"] == pytest.approx((one.lower - 0.1) / 0.9)
    assert {name: found[name] for name in ("certificate_id", "size", "target", "lower", "false_yes", "passed")} == {
        "certificate_id": "1:all",
        "size": 508,
        "target": 0.9,
        "lower": one.lower,
        "false_yes": 0.1,
        "passed": True,
    }
    write_certificates(path, ())
    assert summary_of(asked | {"certificates": path})["certificate"] is None


def test_a_run_in_one_file(tmp_path):
    rows = [{"iteration": 0, "ap": 0.1, "collected": None}, {"iteration": 1, "ap": 0.3, "collected": 4}]
    paths = [write(tmp_path / f"{row['iteration']}.json", row | {"control_ap": None}) for row in rows]
    control, upper = evaluation(tmp_path / "c", 0.15), evaluation(tmp_path / "u", 0.6)
    output = tmp_path / "summary.json"
    summarise_run(
        summaries=paths,
        control_evaluations=[control],
        upper_bound_evaluation=upper,
        loop=LoopConfig(iterations=1),
        output=output,
    )
    found = json.loads(output.read_text())
    assert [row["control_ap"] for row in found["iterations"]] == [None, 0.15]
    assert found["control"] == {"1": {"ap": 0.15, "ap50": 0.5}}
    assert found["upper_bound"] == {"ap": 0.6, "ap50": 0.5}
    assert found["stop_reason"] == "iterations"
    assert found["versions"]["numpy"] == np.__version__


def test_a_run_without_comparisons(tmp_path):
    path = write(tmp_path / "0.json", {"iteration": 0, "ap": 0.1, "collected": None})
    summarise_run(
        summaries=[path],
        control_evaluations=[],
        upper_bound_evaluation=None,
        loop=LoopConfig(iterations=2),
        output=tmp_path / "summary.json",
    )
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["control"], found["upper_bound"], found["stop_reason"]) == (None, None, None)
    assert found["planned_iterations"] == 2


def test_the_certified_precision_is_that_of_all_accepted_masks(run):
    """Sets that were audited apart count by their masks; a mask nobody audited or answered leaves nothing to claim."""
    certificates = run.folder / "certificates.json"
    numbers = {"target": 0.9, "delta": 0.05, "known_good": 0, "unknown": 50, "asked": 20, "bad": 0}
    pair = [fixed_certificate(certificate_id=f"1:category={n}", category=n, **numbers) for n in (1, 7)]
    one, two = (replace(each, lower=lower, claimed=math.nan) for each, lower in zip(pair, (0.9, 0.6), strict=True))
    write_certificates(certificates, (*claim((one, two), 0.0), replace(one, certificate_id="1:failed", lower=0.1)))

    def claimed(verdict, reason, certificate):
        count = len(verdict)
        words = np.array([REASONS.index(word) for word in reason], np.int8)
        ids = ("1:category=7", "1:category=1")
        path = run.folder / "verdicts.parquet"
        columns = np.arange(1, count + 1, dtype=np.uint64), np.array(verdict, np.int8), words
        write_verdicts(path, Verdicts(*columns, np.full(count, -1), np.array(certificate, np.int16), ids))
        return certified(path, certificates)

    assert claimed([1, 1, 1, 0], ["prefix"] * 3 + [""], [1, 1, 0, -1]) == pytest.approx((0.9 + 0.9 + 0.6) / 3)
    assert claimed([1, 1], ["prefix", "answered"], [1, -1]) == pytest.approx(0.9)
    assert claimed([1, 1], ["prefix", "duplicate"], [1, -1]) == pytest.approx(0.9)
    assert claimed([1, 1], ["prefix", "cluster"], [1, -1]) is None
    assert claimed([1, -1], ["answered", "prefix"], [-1, -1]) is None
    assert claimed([], [], []) is None


def test_what_redraws_show_stands_in_the_summary(asked):
    shown = {
        "sample": 5,
        "redrawn": 5,
        "mean_iou": 0.75,
        "interval": [0.5, 0.9],
        "matched": 4,
        "sq": 0.9,
        "sq_interval": [0.8, 0.95],
    }
    path = write(asked["output"].parent / "quality.json", shown | {"masks": [], "redraws": []})
    assert summary_of(asked)["quality"] is None
    assert summary_of(asked | {"quality": path})["quality"] == shown
