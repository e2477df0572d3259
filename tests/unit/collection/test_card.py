import copy
import json

import pytest

from segloop.collection.card import CardFiles, content_hash, write_card
from segloop.config import Config
from segloop.files import write_json

from .conftest import record_of


def mask(number, rect, **more):
    return record_of(number, 11, 1, rect, score=0.8, provenance={"verdict_reason": "cluster"}, **more)


@pytest.fixture
def files(run):
    run.coco(run.folder / "collected.json", [11], [mask(1, (0, 0, 5, 5)), mask(2, (6, 6, 9, 9))], folder="pool")
    audit = {
        "certificate_id": "1", "category": None, "kind": "fixed", "target": 0.9, "delta": 0.025, "size": 2,
        "known_good": 0, "asked": 2, "bad": 0, "lower": 0.93, "clopper_pearson": 0.9, "passed": True,
        "false_yes": 0.01, "claimed": 0.92,
    }  # fmt: skip
    write_json(run.folder / "certificates.json", {"schema": 1, "certificates": [audit]})
    write_json(run.folder / "summary.json", {"iteration": 1, "questions": 40, "collected": 2, "precision": None})
    write_json(run.folder / "model" / "model.json", {"weights_sha256": "ab" * 32})
    return CardFiles(
        collected=[run.folder / "collected.json"],
        summary=run.folder / "summary.json",
        seed_set=run.seed_set,
        models=[run.folder / "model"],
        certificates=[run.folder / "certificates.json"],
    )


def test_the_card_says_what_is_in_it_how_it_was_made_and_what_is_claimed(files, run):
    write_card(files, Config(), {"python": "3", "torch": None}, run.folder / "card.md", run.folder / "manifest.json")
    card = (run.folder / "card.md").read_text(encoding="utf-8")
    manifest = json.loads((run.folder / "manifest.json").read_text())
    for heading in ("Contents", "Sources and licences", "How it was made", "How good it is", "Known biases"):
        assert f"## {heading}" in card
    assert "| disc | 2 | 100.0 % |" in card
    assert "at least 0.920 are good with confidence 0.9750" in card
    assert "asked 40 questions and collected 2 masks" in " ".join(card.split())
    assert manifest["content_sha256"] in card
    assert manifest["weights_sha256"] == ["ab" * 32]
    assert manifest["masks"] == 2


def test_licences_are_those_of_the_configuration(files, run):
    config = Config.model_validate({"card": {"pool_licence": "CC BY 4.0"}})
    write_card(files, config, {}, run.folder / "card.md", run.folder / "manifest.json")
    card = (run.folder / "card.md").read_text(encoding="utf-8")
    assert "Licence: CC BY 4.0." in card
    assert "Licence: not stated" in card


def test_without_an_audit_nothing_is_claimed(files, run):
    write_json(run.folder / "certificates.json", {"schema": 1, "certificates": []})
    write_card(files, Config(), {}, run.folder / "card.md", run.folder / "manifest.json")
    assert "nothing is claimed" in (run.folder / "card.md").read_text(encoding="utf-8")


def test_the_hash_changes_with_any_mask_and_with_nothing_else(files):
    content = json.loads(files.collected[0].read_text())
    known = content_hash([content])
    again = copy.deepcopy(content)
    again["annotations"].reverse()
    for number, one in enumerate(again["annotations"], start=90):
        one["id"], one["score"] = number, 0.1
    assert content_hash([again]) == known
    parts = [content | {"annotations": [one]} for one in content["annotations"]]
    assert content_hash(parts) == known
    for change in ("segmentation", "category_id"):
        other = copy.deepcopy(content)
        one = other["annotations"][0]
        one[change] = mask(1, (0, 0, 5, 6))["segmentation"] if change == "segmentation" else 7
        assert content_hash([other]) != known
    assert content_hash([content | {"annotations": content["annotations"][:1]}]) != known
