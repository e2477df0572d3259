import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labelmelite.errors import ApiError
from labelmelite.loop import showing, thinking
from segloop.annotation.people import check_complete, read_records
from segloop.annotation.verdicts import EDITED, WORDS
from segloop.files import read_json

POLICIES = [
    {"policy": "thesis"},
    {"policy": "thesis", "start": "top:4", "reuse": True, "audit": {"questions": 12, "votes": 3}},
    {"policy": "per_mask", "questions": 25},
    {"policy": "iccv21", "n": 3, "iccv21": {"n": 3, "min_size": 4, "min_prior": 0.2, "ask_small": True}},
    {"policy": "kmeans", "kmeans": {"size": 12}},
    {"policy": "propagate", "questions": 30, "propagate": {"batch": 10, "neighbours": 5}},
    {"policy": "certified", "audit": {"precision": 0.7, "delta": 0.2}},
    {"policy": "score_audit", "audit": {"precision": 0.6, "delta": 0.2}},
]


@pytest.mark.parametrize("annotation", POLICIES, ids=lambda values: values["policy"] + "-" + str(len(values)))
def test_the_replay_reaches_the_verdicts_of_the_session(serve, annotation):
    served = serve(**annotation)
    served.finish("ann", "ben", "cem")
    decided, verdicts = served.verdicts(), served.replayed()
    assert {one: int(v) for one, v in zip(verdicts.prediction.tolist(), verdicts.verdict, strict=True)} == decided
    records = read_records(served.iteration.answers / "answers.jsonl")
    complete = read_json(served.iteration.answers / "complete.json")
    assert complete["answers"] == len(records) > 10
    counts = Counter(WORDS[verdict] for verdict in decided.values())
    assert complete["verdicts"] == {word: counts[word] for word in WORDS.values()}
    asked = Counter((record["mask_key"], record["purpose"]) for record in records)
    votes = served.iteration.config.annotation.audit.votes
    assert {count for (_, purpose), count in asked.items() if purpose == "audit"} <= {votes}
    assert {count for (_, purpose), count in asked.items() if purpose != "audit"} <= {1}


def test_an_iteration_without_questions_is_complete_at_once(serve):
    served = serve(policy="score_threshold", threshold=0.5)
    assert served.session.complete
    assert (served.iteration.answers / "answers.jsonl").read_bytes() == b""
    assert served.task() is None and served.session.thinking.round == 1
    accepted = served.replayed().verdict == 1
    assert 0 < accepted.sum() == (served.iteration.index.score >= 0.5).sum()


def test_a_task_is_the_same_after_a_reload_and_after_a_crash(serve):
    served = serve()
    task = served.task()
    assert served.task() == task
    acks = served.send("ann", task, served.say(task["items"][0], "yes"), served.say(task["items"][1], "no"))
    served.kill()
    again = served.task()
    assert again["id"] == task["id"]
    assert [one["answer"] and one["answer"]["reply"] for one in again["items"]][:3] == ["yes", "no", None]
    assert served.send("ann", task, {**served.say(task["items"][0], "yes"), "client_no": 1}) == acks[:1]


def test_two_people_never_hold_the_same_question(serve):
    served = serve(policy="per_mask", questions=30)
    tasks = [served.task(name) for name in ("ann", "ben", "cem", "dee", "eve")]
    held = [served.prediction(item) for task in tasks if task for item in task["items"]]
    assert len(held) == len(set(held)) == 30
    assert len(tasks[0]["items"]) == 10


def test_a_task_holds_one_category(serve):
    served = serve(policy="per_mask")
    world = served.iteration.world
    for name in ("ann", "ben", "cem"):
        task = served.task(name)
        rows = world.rows_of(np.array([served.prediction(item) for item in task["items"]], np.uint64))
        assert set(world.category[rows].tolist()) == {task["category"]["id"]}
        assert task["category"]["definition"] == f"Of the kind {task['category']['id']}."
        assert task["text"] == f"Is this a good mask of kind {task['category']['id']}?"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alone(served: Any) -> Any:
    """Return a task of ann's after somebody else has answered all other questions."""
    task = served.task("ann")
    while (other := served.task("zed")) is not None:
        served.work("zed", other)
    return task


def test_a_lease_runs_out_and_what_was_answered_counts(serve):
    served = serve({"lease_seconds": 60.0}, policy="per_mask", questions=10)
    task = alone(served)
    served.send("ann", task, served.say(task["items"][0], "yes"))
    assert served.task("ben") is None
    served.time.seconds += 40
    served.session.renew("ann", task["id"])
    served.time.seconds += 40
    assert served.task("ben") is None
    served.time.seconds += 80
    other = served.task("ben")
    left = {served.prediction(item) for item in task["items"][1:]}
    assert {served.prediction(item) for item in other["items"]} == left
    late = served.send("ann", task, served.say(task["items"][1], "yes"))
    assert late[0]["error"]["code"] == "gone"
    with pytest.raises(ApiError, match="time of this task is over"):
        served.session.renew("ann", task["id"])
    served.finish("ben")
    counts = Counter(record["annotator"] for record in served.session.records())
    assert (counts["ann"], counts["ben"], sum(counts.values())) == (1, len(left), 10)


def test_a_late_answer_counts_while_nobody_else_has_the_question(serve):
    served = serve({"lease_seconds": 60.0}, policy="per_mask", questions=10)
    task = alone(served)
    served.time.seconds += 100
    served.session.thinking._ticked()
    assert served.session.book.tasks[task["id"]].end == "expired"
    acks = served.send("ann", task, *(served.say(item, served.truth_of(item)) for item in task["items"]))
    assert all("seq" in ack for ack in acks)
    assert served.session.wait() and served.session.complete
    assert len(served.replayed()) == len(served.iteration.index)


def test_who_is_faster_than_eyes_is_set_aside(serve):
    served = serve({"least_seconds": 0.7}, policy="per_mask", questions=10)
    task = served.task()
    count = len(task["items"])
    served.send("ann", task, *(served.say(item, "yes", seconds=0.1) for item in task["items"]))
    served.time.seconds += 60
    done = served.session.submit("ann", task["id"], 0.5)
    assert not done["accepted"] and "set aside" in done["message"]
    assert served.session.records() == []
    again = served.task("ben")
    assert len(again["items"]) == count
    served.time.seconds += 60
    assert served.work("ben", again)["accepted"]
    served.session.close()
    lines = (served.iteration.answers / "set_aside.jsonl").read_text().splitlines()
    assert {json.loads(line)["annotator"] for line in lines} == {"ann"} and len(lines) == count
    served.kill()
    assert len(served.session.book.aside) == count


def test_a_page_that_was_loaded_again_loses_no_task(serve):
    served = serve({"least_seconds": 0.7}, policy="per_mask", questions=10)
    task = served.task()
    served.send("ann", task, *(served.say(item, served.truth_of(item)) for item in task["items"]))
    served.time.seconds += 120
    assert served.session.submit("ann", task["id"], 1.2)["accepted"]
    # No page says more than has passed.
    task = served.task()
    served.send("ann", task, *(served.say(item, "yes", seconds=100.0) for item in task["items"]))
    served.time.seconds += 1
    assert not served.session.submit("ann", task["id"], 500.0)["accepted"]


def test_time_on_one_item_is_bounded_and_counted_once(serve):
    served = serve({"most_seconds": 50.0}, policy="per_mask", questions=12)
    task = served.task()
    served.send("ann", task, served.say(task["items"][0], "yes", seconds=1e5), served.say(task["items"][1], "no"))
    served.send("ann", task, served.say(task["items"][1], "yes", seconds=3.0))
    served.session.submit("ann", task["id"], 60.0)
    served.session.wait()
    spent = {record["prediction"]: record for record in served.session.records()}
    assert [spent[served.prediction(item)]["seconds"] for item in task["items"][:2]] == [50.0, 3.0]
    assert spent[served.prediction(task["items"][1])]["price"] == pytest.approx(3.0 / 3600 * 18)
    assert spent[served.prediction(task["items"][1])]["reply"] == "yes"
    # Changes after the end are records of their own; together they say what the item took.
    served.send("ann", task, served.say(task["items"][1], "no", seconds=7.0))
    served.send("ann", task, served.say(task["items"][1], "yes", seconds=0.0))
    of_it = [one for one in served.session.records() if one["prediction"] == served.prediction(task["items"][1])]
    assert [one["seconds"] for one in of_it] == [3.0, 4.0, 0.0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"reply": "maybe"}, "bad_request"),
        ({"reply": "yes", "reason": "partial"}, "bad_request"),
        ({"item": "nothing"}, "not_found"),
        ({"client_no": -1}, "bad_request"),
        ({"client_no": True}, "bad_request"),
        ({"seconds": -1}, "bad_request"),
        ({"seconds": float("inf")}, "bad_request"),
        ({"layout": "carousel"}, "bad_request"),
        ({"default_used": "yes"}, "bad_request"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_by_itself(serve, change, code):
    served = serve()
    task = served.task()
    good = served.say(task["items"][1], "yes")
    acks = served.send("ann", task, served.say(task["items"][0], "yes") | change, good, "nonsense")
    assert [ack.get("error", {}).get("code") for ack in acks] == [code, None, "bad_request"]


def test_other_peoples_tasks_are_not_there(serve):
    served = serve()
    task = served.task("ann")
    for call in (
        lambda: served.send("ben", task, served.say(task["items"][0], "yes")),
        lambda: served.session.submit("ben", task["id"], 1.0),
        lambda: served.session.give_back("ben", task["id"]),
        lambda: served.session.renew("ben", task["id"]),
        lambda: served.session.picture("ben", task["items"][0]["id"]),
        lambda: served.session.picture("ben", "p12345"),
        lambda: served.session.picture("ben", "p" + "9" * 30),
    ):
        with pytest.raises(ApiError) as refused:
            call()
        assert refused.value.code == "not_found"


def test_what_is_given_back_goes_to_others(serve):
    served = serve(policy="per_mask", questions=10)
    task = alone(served)
    served.send("ann", task, served.say(task["items"][0], "no"))
    served.session.give_back("ann", task["id"])
    assert served.session.wait()
    other = served.task("ben")
    assert len(other["items"]) == len(task["items"]) - 1


def test_what_the_disk_did_not_take_is_not_in_the_book(serve, monkeypatch):
    served = serve(policy="per_mask", questions=12)
    task = served.task()
    write = served.store.write_now

    def full(work):
        def fail(connection):
            work(connection)
            connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

        return write(fail)

    with monkeypatch.context() as patched:
        calls = iter([full, write, full, write, full, write, write])
        patched.setattr(served.store, "write_now", lambda work: next(calls)(work))
        for attempt in (
            lambda: served.send("ann", task, served.say(task["items"][0], "yes")),
            lambda: served.task("ben"),
            lambda: served.session.submit("ann", task["id"], 60.0),
        ):
            with pytest.raises(ApiError, match="Nothing was saved"):
                attempt()
    book = served.session.book
    assert list(book.tasks) == [task["id"]] and book.tasks[task["id"]].end is None
    assert book.tasks[task["id"]].answered == 0
    served.finish("ann", "ben")
    assert len(served.session.records()) == 12
    served.replayed()


def test_a_moment_of_full_disk_stops_nothing_for_good(serve, monkeypatch):
    monkeypatch.setattr(thinking, "_TICK", 0.05)
    served = serve(policy="per_mask", questions=20)
    task = served.task()
    served.send("ann", task, *(served.say(item, served.truth_of(item)) for item in task["items"]))
    with monkeypatch.context() as patched:
        tries = 0

        def full(_: Any) -> None:
            nonlocal tries
            tries += 1
            raise OSError(28, "No space left on device")

        patched.setattr(served.session, "_look_ahead", full)
        served.session.submit("ann", task["id"], 60.0)
        wait_until(lambda: tries > 2)
        with pytest.raises(ApiError, match=r"cannot be chosen: .*No space left") as refused:
            served.task("ben")
        assert refused.value.status == 503
    wait_until(lambda: served.session.thinking.failure is None)
    served.finish("ben")


# --- audits -----------------------------------------------------------------------------------------------------------

AUDITED = {"policy": "thesis", "start": "top:6", "audit": {"questions": 8, "votes": 1, "precision": 0.5}}


def until_audit(served: Any) -> Any:
    while True:
        task = served.task()
        if served.purpose(task["items"][0]) == "audit":
            return task
        served.work("ann", task)


def test_audits_stand_apart_and_need_answers_of_their_own(serve):
    served = serve(**AUDITED, gold=3)
    while True:
        task = served.task()
        kinds = {served.purpose(item) for item in task["items"]} - {"gold"}
        if kinds == {"audit"}:
            break
        assert "audit" not in kinds and task["third"]
        served.work("ann", task)
    assert (task["third"], task["default"]) == (False, "none")
    refused = served.send("ann", task, served.say(task["items"][0], "other"))
    assert refused[0]["error"]["code"] == "bad_request"
    refused = served.send("ann", task, served.say(task["items"][0], "no", default_used=True))
    assert refused[0]["error"]["code"] == "bad_request"


def test_an_answer_of_an_audit_changes_freely_until_it_is_submitted(serve):
    served = serve(**AUDITED)
    task = until_audit(served)
    served.send("ann", task, *(served.say(item, "no") for item in task["items"]))
    served.work("ann", task)
    served.finish()
    assert served.session.thinking.reached.voided == 0


def test_a_change_after_an_audit_voids_it_and_spends_more(serve):
    served = serve(**AUDITED)
    task = until_audit(served)
    served.work("ann", task)
    item = task["items"][0]
    changed = "no" if served.truth_of(item) == "yes" else "yes"
    assert "seq" in served.send("ann", task, served.say(item, changed))[0]
    assert served.session.wait()
    reached = served.session.thinking.reached
    assert reached.voided == 1
    assert reached.config.audit.delta == served.iteration.config.annotation.audit.delta / 2
    served.finish()
    fresh = {r["mask_key"] for r in served.session.records() if r["purpose"] == "audit"}
    assert len(fresh) > 8
    decided, verdicts = served.verdicts(), served.replayed()
    assert {one: int(v) for one, v in zip(verdicts.prediction.tolist(), verdicts.verdict, strict=True)} == decided
    delta = read_json(served.folder / "certificates.json")["certificates"][0]["delta"]
    assert delta == served.iteration.config.annotation.audit.delta / 4
    assert read_json(served.iteration.answers / "complete.json")["voided_audits"] == 1


def test_a_change_reopens_what_was_complete_until_the_run_has_gone_on(serve):
    served = serve(policy="per_mask", questions=12)
    tasks = []
    while not served.session.complete:
        tasks.append(served.task())
        served.work("ann", tasks[-1])
    before = (served.iteration.answers / "answers.jsonl").read_bytes()
    item = tasks[0]["items"][0]
    changed = "no" if served.truth_of(item) == "yes" else "yes"
    served.send("ann", tasks[0], served.say(item, changed))
    assert served.session.wait() and served.session.complete
    after = (served.iteration.answers / "answers.jsonl").read_bytes()
    assert after.startswith(before) and len(after.splitlines()) == len(before.splitlines()) + 1
    assert served.replayed().verdict.tolist().count(1) == sum(v == 1 for v in served.verdicts().values())


# --- gold, repeats, gate ----------------------------------------------------------------------------------------------


def with_gold(served: Any, count: int = 30) -> None:
    world, masks = served.iteration.world, served.session.replay.masks
    rows = np.random.default_rng(4).permutation(len(world))[:count]
    words = {masks[row].hex(): "yes" if served.truth[int(world.prediction[row])] else "no" for row in rows.tolist()}
    served.iteration.answers_root.mkdir(parents=True, exist_ok=True)
    (served.iteration.answers_root / "gold.json").write_text(json.dumps(words))
    served.kill()


def test_gold_and_repeats_cannot_be_told_from_other_questions(serve):
    served = serve(policy="per_mask", gold=5, repeats=5)
    with_gold(served)
    purposes: Counter[str] = Counter()
    places = []
    for _ in range(12):
        task = served.task()
        purposes.update(served.purpose(item) for item in task["items"])
        places += [place for place, item in enumerate(task["items"]) if served.purpose(item) == "gold"]
        assert len({frozenset(item) for item in task["items"]}) == 1
        shown = json.dumps(task)
        assert not any(word in shown for word in ("gold", "repeat", "purpose", "decide", "mask_key"))
        assert not any(str(served.prediction(item)) in shown for item in task["items"])
        served.work("ann", task)
    assert 15 <= purposes["gold"] <= 25 and 10 <= purposes["repeat"] <= 25
    assert len(set(places)) > 4
    gold = [r["mask_key"] for r in served.session.records() if r["purpose"] == "gold"]
    assert len(gold) == len(set(gold)) == purposes["gold"]


def test_who_fails_gold_gets_no_new_work(serve):
    served = serve({"gate_least": 4}, policy="per_mask", gold=2)
    with_gold(served, 60)
    wrong = {"yes": "no", "no": "yes"}
    for _ in range(20):
        task = served.task("bad")
        if task is None:
            break
        served.work("bad", task, lambda item: wrong[served.truth_of(item)])
    assert task is None
    assert "no more questions for you" in served.session.next_task("bad", "questions", None, [])["message"]
    assert served.task("good") is not None


def test_an_annotator_who_always_says_yes_still_ends_it(serve):
    served = serve(**AUDITED)
    served.finish(reply=lambda item: "yes")
    assert served.replayed().verdict.tolist().count(1) == len(served.iteration.world)


# --- files ------------------------------------------------------------------------------------------------------------


def test_answers_from_files_count_and_stay(serve):
    one = serve(policy="per_mask", questions=20)
    one.finish()
    lines = (one.iteration.answers / "answers.jsonl").read_bytes().splitlines(keepends=True)
    foreign = json.dumps({**json.loads(lines[0]), "answer_id": "foreign", "mask_key": "ab" * 32}).encode() + b"\n"
    other = serve(policy="per_mask", questions=20)
    other.iteration.answers.mkdir(parents=True)
    given = b"".join([*lines[:7], foreign, *lines[:3]])
    (other.iteration.answers / "answers.jsonl").write_bytes(given + lines[8][:40])
    other.kill()
    assert len(other.session.records()) == 8
    task = other.task()
    assert not {other.prediction(item) for item in task["items"]} & {
        json.loads(line)["prediction"] for line in lines[:7]
    }
    other.finish()
    content = (other.iteration.answers / "answers.jsonl").read_bytes()
    assert content.startswith(given) and lines[8][:40] not in content[len(given) : len(given) + 41].splitlines()
    assert (other.iteration.answers / "answers.jsonl.cut").read_bytes() == lines[8][:40] + b"\n"
    assert {record["answer_id"] for record in read_records(other.iteration.answers / "answers.jsonl")} >= {"foreign"}
    assert np.array_equal(one.replayed().verdict, other.replayed().verdict)


def test_lines_that_appear_while_people_answer_are_taken_in_before_the_run_goes_on(serve):
    served = serve(policy="thesis", start="root", t_agr=1.0)
    task = served.task()
    while not served.session.complete and task is not None:
        items = served.session.book.tasks[task["id"]].items.values()
        lines = [
            {
                "answer_id": f"other {item.id}",
                "prediction": item.prediction,
                "mask_key": item.key.hex(),
                "annotator": "somebody",
                "purpose": item.purpose,
                "reply": "no" if served.truth[item.prediction] else "yes",
            }
            for item in items
        ]
        served.iteration.answers.mkdir(parents=True, exist_ok=True)
        with (served.iteration.answers / "answers.jsonl").open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in lines)
        served.work("ann", task)
        task = served.task() if len(served.session.book.tasks) < 4 else None
    served.finish()
    decided, verdicts = served.verdicts(), served.replayed()
    assert {one: int(v) for one, v in zip(verdicts.prediction.tolist(), verdicts.verdict, strict=True)} == decided
    assert "somebody" in {record["annotator"] for record in served.session.records()}


def test_a_server_that_is_closed_leaves_its_answers(serve):
    served = serve(policy="per_mask", questions=30)
    served.work("ann", served.task())
    served.session.close()
    assert len(read_records(served.iteration.answers / "answers.jsonl")) == 10
    assert not served.iteration.complete
    served.store.close()
    served.open()
    assert len(served.session.records()) == 10


# --- picks, edits, redraws --------------------------------------------------------------------------------------------


def test_picked_masks_are_asked_first_and_survive_the_replay(serve):
    served = serve(policy="thesis", start="top:2")
    world = served.iteration.world
    asked = set(served.session.thinking.reached.decision.question_row.tolist())
    rows = [row for row in range(len(world)) if row not in asked][:6]
    names = [f"{showing.FREE}{world.prediction[row]}" for row in rows]
    assert served.session.pick("ann", names, "odd ones") == {"queued": 6, "known": 0}
    served.kill()
    picked: set[int] = set()
    for _ in range(2):
        task = served.task()
        picked |= {served.prediction(item) for item in task["items"]}
        served.work("ann", task)
    assert {int(world.prediction[row]) for row in rows} <= picked
    assert served.session.pick("ann", names[:2], "again") == {"queued": 0, "known": 2}
    served.finish()
    decided, verdicts = served.verdicts(), served.replayed()
    assert {one: int(v) for one, v in zip(verdicts.prediction.tolist(), verdicts.verdict, strict=True)} == decided
    assert all(
        decided[int(world.prediction[row])] == (1 if served.truth[int(world.prediction[row])] else -1) for row in rows
    )


def test_nothing_is_picked_once_an_audit_has_begun(serve):
    served = serve(**AUDITED)
    until_audit(served)
    with pytest.raises(ApiError, match="audit has begun"):
        served.session.pick("ann", [f"{showing.FREE}{served.iteration.world.prediction[0]}"], "")


def drawing(served: Any, item: dict[str, Any], after: Any) -> dict[str, Any]:
    served.number += 1
    before = item.get("mask")
    return {"client_no": served.number, "item": item["id"], "before": before, "after": after, "seconds": 20.0}


def full(item: dict[str, Any]) -> dict[str, Any]:
    from segloop.data import masks

    return masks.to_json(masks.encode(np.ones((item["height"], item["width"]), np.bool_)))


def test_a_badly_drawn_mask_is_mended_accepted_and_paid(serve):
    served = serve(policy="per_mask", questions=20)
    task = served.task()
    bad = [served.say(item, "no", reason="bad_boundary") for item in task["items"][:3]]
    served.send("ann", task, *bad, *(served.say(item, "no") for item in task["items"][3:]))
    served.session.submit("ann", task["id"], 60.0)
    assert served.session.wait()
    edit = served.task("ben", "edits")
    assert {served.prediction(item) for item in edit["items"]} == {
        served.prediction(item) for item in task["items"][:3]
    }
    assert served.task("cem", "edits") is None
    small = {"size": [2, 2], "counts": "04"}
    acks = served.send("ben", edit, drawing(served, edit["items"][0], small))
    assert acks[0]["error"]["code"] == "bad_mask"
    first, second, _ = edit["items"]
    served.send("ben", edit, drawing(served, first, full(first)), drawing(served, second, second["mask"]))
    served.session.submit("ben", edit["id"], 60.0)
    assert served.session.wait()
    lines = [json.loads(line) for line in (served.iteration.answers / "edits.jsonl").read_text().splitlines()]
    assert [(line["annotator"], line["prediction"], line["seconds"]) for line in lines] == [
        ("ben", served.prediction(first), 20.0)
    ]
    assert served.task("cem", "edits")["items"][0]["alt"]
    served.session.give_back("cem", served.task("cem", "edits")["id"])
    served.finish()
    verdicts = served.replayed()
    place = verdicts.prediction.tolist().index(served.prediction(first))
    assert (verdicts.verdict[place], verdicts.reason[place]) == (1, EDITED)
    edited = read_json(served.folder / "edited.json")
    assert edited["masks"][0]["segmentation"] == full(first)
    assert edited["work"][0]["price"] == pytest.approx(20 / 3600 * 18)


def test_any_mask_is_edited_on_request_and_then_known_to_be_bad(serve):
    served = serve(policy="thesis")
    world = served.iteration.world
    asked = set(served.session.thinking.reached.decision.question_row.tolist())
    row = next(row for row in range(len(world)) if row not in asked)
    edit = served.task("ann", "edits", (f"{showing.FREE}{world.prediction[row]}",))
    served.send("ann", edit, drawing(served, edit["items"][0], full(edit["items"][0])))
    served.session.submit("ann", edit["id"], 60.0)
    assert served.session.wait()
    (record,) = served.session.records()
    assert (record["reply"], record["reason"], record["seconds"]) == ("no", "bad_boundary", 0.0)
    assert bool(served.session.thinking.known[row])


def test_an_edit_that_changes_nothing_is_done_too(serve):
    served = serve(policy="per_mask", questions=20)
    task = served.task()
    bad = [served.say(item, "no", reason="bad_boundary") for item in task["items"][:3]]
    served.send("ann", task, *bad, *(served.say(item, "no") for item in task["items"][3:]))
    served.session.submit("ann", task["id"], 60.0)
    assert served.session.wait()
    edit = served.task("ben", "edits")
    right, none, left = edit["items"]
    served.send("ben", edit, drawing(served, right, right["mask"]), drawing(served, none, None))
    served.session.submit("ben", edit["id"], 60.0)
    served.kill()
    assert [served.prediction(item) for item in served.task("ben", "edits")["items"]] == [served.prediction(left)]
    assert not served.session.book.edits


def never_asked(serve: Any) -> tuple[Any, str]:
    """Return what is served, and an item of the map that no policy asks about."""
    twin, served = serve(policy="thesis"), serve(policy="thesis")
    twin.finish()
    asked = {record["prediction"] for record in twin.session.records()}
    return served, next(f"{showing.FREE}{one}" for one in twin.iteration.world.prediction.tolist() if one not in asked)


def test_an_edit_under_way_is_waited_for(serve):
    served, name = never_asked(serve)
    edit = served.task("ben", "edits", (name,))
    while (task := served.task()) is not None:
        served.work("ann", task)
    assert not served.session.complete
    served.send("ben", edit, drawing(served, edit["items"][0], full(edit["items"][0])))
    served.session.submit("ben", edit["id"], 60.0)
    assert served.session.wait()
    served.finish()
    check_complete(served.iteration.answers / "answers.jsonl")
    assert served.prediction(edit["items"][0]) in {record["prediction"] for record in served.session.records()}
    served.replayed()


def test_an_edit_that_comes_late_takes_back_that_all_is_answered(serve, monkeypatch):
    served, name = never_asked(serve)
    edit = served.task("ben", "edits", (name,))
    served.session.give_back("ben", edit["id"])
    served.finish()
    answers = served.iteration.answers / "answers.jsonl"
    before = answers.read_bytes()
    with monkeypatch.context() as patched:
        # As when the server is ended before the policy has thought about it.
        patched.setattr(served.session.thinking, "ask", lambda: None)
        acks = served.send("ben", edit, drawing(served, edit["items"][0], full(edit["items"][0])))
        assert "seq" in acks[0]
        served.session.leave()
        assert answers.read_bytes() != before and not served.session.complete
    served.kill()
    served.finish()
    check_complete(answers)
    served.replayed()


def test_a_task_counts_in_the_submission_that_it_was_submitted_in(serve):
    served = serve({"lease_seconds": 60.0}, policy="per_mask", questions=100)
    counts = []
    for submission in ("a", "a", "b"):
        task = served.task()
        served.send("ann", task, *(served.say(item, served.truth_of(item)) for item in task["items"]))
        counts.append(served.session.submit("ann", task["id"], 60.0, submission)["submitted"])
    assert counts == [1, 2, 1]
    # All was answered, but the lease ended first.
    late, half = served.task(), served.task("ben")
    served.send("ann", late, *(served.say(item, served.truth_of(item)) for item in late["items"]))
    served.send("ben", half, served.say(half["items"][0], "yes"))
    served.time.seconds += 100
    served.session.thinking._ticked()
    for _ in range(2):
        assert served.session.submit("ann", late["id"], 60.0, "b")["submitted"] == 2
    assert served.session.submit("ben", half["id"], 60.0, "b") == {
        "accepted": True,
        "message": "Thank you.",
        "submitted": 0,
    }
    served.kill()
    assert [served.session.book.submitted("ann", one) for one in ("a", "b", "")] == [2, 2, 0]
    assert served.session.book.tasks[late["id"]].end == "expired"


def test_tasks_are_counted_while_others_get_theirs(serve):
    served = serve(policy="per_mask", questions=100)
    task = served.task()
    served.send("ann", task, *(served.say(item, "yes") for item in task["items"]))
    held = []

    class Watched(dict[str, Any]):
        def values(self) -> Any:
            held.append(served.session.lock._is_owned())
            return super().values()

    served.session.book.tasks = Watched(served.session.book.tasks)
    served.session.submit("ann", task["id"], 60.0)
    assert held and all(held)


def test_the_quality_sample_is_redrawn_without_being_shown(serve, waiting):
    served = serve(policy="per_mask", questions=3)
    world, index = served.iteration.world, served.iteration.index
    rows = [int(np.searchsorted(index.prediction, world.prediction[row])) for row in range(3)]
    sample = [
        {
            "prediction": str(index.prediction[row]),
            "mask_key": index.mask_key[row].tobytes().hex(),
            "category_id": int(index.category[row]),
        }
        for row in rows
    ]
    path = waiting.folder / "quality_sample.json"
    path.write_text(json.dumps({"masks": sample}))
    try:
        drawn = 0
        while (task := served.task("ann", "redraws")) is not None:
            assert all("mask" not in item for item in task["items"])
            answers = [drawing(served, item, full(item) if drawn == 0 else None) for item in task["items"]]
            drawn += len(answers)
            assert all("seq" in ack for ack in served.send("ann", task, *answers))
            served.session.submit("ann", task["id"], 60.0)
        assert served.session.wait() and drawn == 3
    finally:
        path.unlink()
    from segloop.annotation.redraws import read_redraws

    assert len(read_redraws(served.iteration.answers / "redraws.jsonl")) == 3
