"""What people's records lead to: changes, voided audits, and what earlier iterations know."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segloop.annotation.answers import PURPOSES
from segloop.annotation.certificates import delta_of_iteration, read_certificates
from segloop.annotation.driver import annotate_people
from segloop.annotation.policies.base import AUDIT
from segloop.annotation.recorded import MaskRows, Replay, policy_seed, spent, voiding
from segloop.config import AnnotationConfig, AuditConfig
from segloop.store.index import write_index
from segloop.store.reduced import Reduced, write_reduced
from segloop.store.tree import write_tree

CONFIG = AnnotationConfig(policy="thesis", n=3, start="top:3", audit=AuditConfig(questions=6, precision=0.5))


def record(key: bytes, reply: str, purpose: str = "decide", annotator: str = "a", **more: Any) -> dict[str, Any]:
    number = more.pop("number", 0)
    fields = {"prediction": 0, "reason": None, "node": None, "draw": None, "batch": 0, "seconds": 1.0, "price": None}
    fields |= {"schema": 1, "t_iou": 0.8, "text_version": None, "layout": None, "default_used": False, "time": None}
    name = f"{key.hex()[:8]} {annotator} {purpose} {number}"
    given = {"mask_key": key, "annotator": annotator, "purpose": purpose, "reply": reply, "answer_id": name}
    return fields | given | more


K, L = b"k" * 32, b"l" * 32


@pytest.mark.parametrize(
    ("records", "places"),
    [
        ([], []),
        ([record(K, "yes"), record(K, "no")], []),
        ([record(K, "yes", "audit"), record(K, "no", "audit")], [1]),
        ([record(K, "yes", "audit"), record(K, "yes", "audit")], []),
        ([record(K, "yes", "audit"), record(K, "no", "audit", "b")], []),
        ([record(K, "yes"), record(L, "no", "audit"), record(K, "no")], [2]),
        ([record(K, "yes", "audit"), record(K, "no", "audit"), record(K, "yes", "audit")], [1]),
        (
            [
                record(K, "yes", "audit"),
                record(K, "no", "audit"),
                record(L, "no", "audit"),
                record(K, "yes", "audit"),
            ],
            [1, 3],
        ),
        ([record(L, "no", "audit"), record(K, "yes", "gold"), record(K, "no", "gold")], []),
        ([record(L, "no", "audit"), record(K, "yes", "repeat"), record(K, "no", "repeat")], []),
    ],
)
def test_which_answers_void_an_audit(records, places):
    assert voiding(records) == places


def test_each_voided_audit_halves_what_is_left():
    assert spent(CONFIG, 0) is CONFIG
    assert spent(CONFIG, 3).audit.delta == CONFIG.audit.delta / 8
    # Iterations 1, 2, 3 with two voided audits in iteration 1 spend parts that together stay below delta.
    parts = [delta_of_iteration(spent(CONFIG, voids).audit.delta, i) for i, voids in ((1, 0), (1, 1), (1, 2), (2, 2))]
    assert parts == [CONFIG.audit.delta * 2.0**-power for power in (1, 2, 3, 4)]


def test_masks_are_found_by_their_key(make_tree, make_world, make_index):
    world = make_world(make_tree([1] * 9))
    index = make_index(world, duplicates=2)
    index.mask_key[3] = index.mask_key[1]
    masks = MaskRows(index, world)
    for place, prediction in enumerate(index.prediction[:9].tolist()):
        row = masks.find(index.mask_key[place].tobytes(), prediction)
        assert int(world.prediction[row]) == prediction and masks[row] == index.mask_key[place].tobytes()
    twin = {int(world.prediction[masks.find(index.mask_key[1].tobytes(), 7)])}
    assert twin <= set(index.prediction[[1, 3]].tolist())
    assert masks.find(index.mask_key[-1].tobytes(), int(index.prediction[-1])) == -1
    assert masks.find(b"x" * 32, 1) == -1
    assert masks.match([]).tolist() == []


class People:
    """Somebody who knows the truth and answers whatever a replay asks."""

    def __init__(self, make_tree, make_world, make_index, config, earlier=(), size=70):
        categories = [1] * (4 * size // 7) + [2] * (3 * size // 7)
        world = make_world(make_tree(categories), categories)
        self.good = (world.category == 1) & (np.arange(len(world)) % 9 > 0)
        # The score knows something, as that of a detector does.
        self.world = replace(world, score=(0.5 * world.score + 0.5 * self.good).astype(np.float32))
        self.index = make_index(self.world)
        self.replay = Replay(self.world, self.index, config, 1, 5, earlier)
        self.records: list[dict[str, Any]] = []

    def answer(self, row: int, purpose: str, node: int = -1, reply: str | None = None) -> dict[str, Any]:
        word = reply or ("yes" if self.good[row] else "no")
        key = self.replay.masks[row]
        more = {"prediction": int(self.world.prediction[row]), "node": None if node < 0 else node}
        number = sum(one["mask_key"] == key for one in self.records)
        return record(key, word, purpose, number=number, **more)

    def go_on(self, until=lambda decision: False):
        while True:
            reached = self.replay(self.records)
            decision = reached.decision
            if decision.done or until(decision):
                return reached
            asked = zip(decision.question_row, decision.question_purpose, decision.question_node, strict=True)
            self.records += [self.answer(int(row), PURPOSES[int(p)], int(node)) for row, p, node in asked]


@pytest.mark.parametrize("policy", ["thesis", "score_audit", "certified"])
def test_a_voided_audit_is_followed_by_a_fresh_one(make_tree, make_world, make_index, policy):
    audit = AuditConfig(questions=6, precision=0.7, delta=0.3)
    config = CONFIG.model_copy(update={"policy": policy, "audit": audit})
    people = People(make_tree, make_world, make_index, config, size=70 if policy == "thesis" else 700)
    people.go_on()
    audited = [one for one in people.records if one["purpose"] == "audit"]
    assert len(audited) == 6 if policy == "thesis" else audited
    before = len(people.records)
    changed = audited[0]
    people.records.append(
        record(
            changed["mask_key"],
            "no" if changed["reply"] == "yes" else "yes",
            "audit",
            prediction=changed["prediction"],
            number=7,
        )
    )
    reached = people.go_on()
    assert reached.voided == 1 and reached.decision.done
    fresh = [one for one in people.records[before + 1 :] if one["purpose"] == "audit"]
    assert fresh and not {one["mask_key"] for one in fresh} & {one["mask_key"] for one in audited}
    assert all(one.delta <= audit.delta / 4 for one in reached.decision.certificates)
    if policy == "thesis":
        assert len(fresh) == 6
    # The same records in one piece, by somebody who was not there, give the same decision.
    again = Replay(people.world, people.index, people.replay._config, 1, 5)(people.records).decision
    for name in ("verdict", "reason", "node", "certificate"):
        assert np.array_equal(getattr(again, name), getattr(reached.decision, name)), name
    assert again.certificates == reached.decision.certificates


def test_a_change_before_the_audit_only_counts(make_tree, make_world, make_index):
    people = People(make_tree, make_world, make_index, CONFIG)
    people.go_on(until=lambda decision: AUDIT in decision.question_purpose)
    one = people.records[0]
    other = "no" if one["reply"] == "yes" else "yes"
    people.records.append(record(one["mask_key"], other, prediction=one["prediction"], number=3))
    reached = people.go_on()
    row = people.replay.masks.find(one["mask_key"], one["prediction"])
    assert reached.voided == 0
    assert reached.decision.verdict[row] == (1 if other == "yes" else -1)


def test_answers_of_earlier_iterations_are_known(make_tree, make_world, make_index):
    people = People(make_tree, make_world, make_index, CONFIG)
    reached = people.replay([])
    rows = reached.decision.question_row[:3].tolist()
    words = ["yes", "no", "other"]
    earlier = [
        [people.answer(row, "decide", 3, word) | {"prediction": 9} for row, word in zip(rows, words, strict=True)]
    ]
    earlier[0].append(record(b"z" * 32, "yes"))
    later = People(make_tree, make_world, make_index, CONFIG, earlier)
    asked = later.replay([]).decision.question_row.tolist()
    # What was called no part of its cluster belongs to another cluster now, and is asked again.
    assert rows[0] not in asked and rows[1] not in asked and rows[2] in asked
    reached = later.go_on()
    assert reached.decision.verdict[rows[:2]].tolist() == [1, -1]


def test_voided_audits_of_earlier_iterations_have_spent_their_part(make_tree, make_world, make_index):
    earlier = [[record(K, "yes", "audit"), record(K, "no", "audit")], [record(L, "yes", "audit")]]
    people = People(make_tree, make_world, make_index, CONFIG, earlier)
    assert people.go_on().config.audit.delta == CONFIG.audit.delta / 2


def test_seeds_of_new_audits_differ():
    assert policy_seed(1, 2) == policy_seed(1, 2, 0) != policy_seed(1, 2, 1) != policy_seed(1, 2, 2)


def test_the_rule_replays_voided_audits_and_earlier_answers(tmp_path, make_tree, make_world, make_index):
    people = People(make_tree, make_world, make_index, CONFIG)
    people.go_on()
    one = next(one for one in people.records if one["purpose"] == "audit")
    other = "no" if one["reply"] == "yes" else "yes"
    people.records.append(record(one["mask_key"], other, "audit", prediction=one["prediction"], number=5))
    reached = people.go_on()
    tree = people.world.tree
    write_tree(tmp_path / "tree.zarr", tree)
    write_index(tmp_path / "index.zarr", people.index, {})
    components = np.zeros((tree.n, 2), np.float16)
    write_reduced(tmp_path / "reduced.zarr", Reduced(tree.row_id, components, {}))
    for name, records in (("now", people.records), ("then", [record(b"z" * 32, "yes")])):
        lines = [json.dumps(one | {"mask_key": one["mask_key"].hex()}) + "\n" for one in records]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    annotate_people(
        tree=tmp_path / "tree.zarr",
        index=tmp_path / "index.zarr",
        reduced=tmp_path / "reduced.zarr",
        recorded=tmp_path / "now.jsonl",
        answers=tmp_path / "answers.parquet",
        verdicts=tmp_path / "verdicts.parquet",
        certificates=tmp_path / "certificates.json",
        annotators=tmp_path / "annotators.json",
        config=CONFIG,
        iteration=1,
        seed=5,
        earlier=[tmp_path / "then.jsonl"],
    )
    assert read_certificates(tmp_path / "certificates.json") == reached.decision.certificates
    assert reached.decision.certificates[0].delta == CONFIG.audit.delta / 4
