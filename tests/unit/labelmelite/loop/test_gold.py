import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelmelite.errors import ApiError
from labelmelite.loop import showing
from labelmelite.loop.gold import GoldMasks
from segloop.annotation.people import read_gold
from segloop.data import masks
from segloop.files import read_json

from .conftest import HEIGHT, WIDTH, rectangle, with_answers

A, NEIGHBOUR = (2, 2, 10, 10), (2, 7, 10, 10)
"""Objects of one image and category that overlap at an IoU of 1/3."""


@pytest.fixture
def validated(waiting: Any, tmp_path: Path) -> Any:
    """Return a function that gives the iteration predictions on 20 validation images, and gold questions."""
    run = tmp_path / "run"
    (run / "results").mkdir(parents=True)
    (run / "results" / "iter_1").symlink_to(waiting.folder)
    (run / "resources" / "seed").mkdir(parents=True)
    (run / "resources" / "pool").symlink_to(waiting.run / "resources" / "pool")
    (run / "results" / "iter_0").mkdir()

    def record(image: int, category: int, rect: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
        rle = masks.to_json(rectangle(*rect))
        return {"image_id": image, "category_id": category, "segmentation": rle, "iscrowd": 0, **more}

    truth, found = [], []
    for image in range(1, 21):
        truth += [record(image, 1, A), record(image, 1, NEIGHBOUR), record(image, 2, (20, 2, 6, 6))]
        if image == 20:
            truth.append(record(image, 2, (0, 0, 3, 3), iscrowd=1))
        found += [
            # Perfect, though a third of it lies in the neighbour; half off; at nothing of its kind; in the middle.
            record(image, 1, A, score=0.9),
            record(image, 1, (2, 12, 10, 10), score=0.8),
            record(image, 2, (20, 14, 6, 6), score=0.7),
            record(image, 2, (21, 2, 6, 6), score=0.6),
            record(image, 2, (20, 2, 6, 6), score=0.01),
        ]
    images = [{"id": n, "file_name": f"val/{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, 21)]
    (run / "resources" / "seed" / "val.json").write_text(json.dumps({"images": images, "annotations": truth}))
    (run / "results" / "iter_0" / "validation_results.json").write_text(json.dumps(found))

    def make(**annotation: Any) -> Any:
        return with_answers(replace(waiting, run=run), tmp_path, **annotation)

    return make


def test_gold_is_made_of_validation_predictions_by_their_best_match(validated, tmp_path):
    iteration = validated(gold=5)
    gold = GoldMasks(iteration)
    root = iteration.answers_root
    words = read_json(root / "gold.json")
    shown = {one.key: one for some in gold.by_category.values() for one in some}
    assert {key.hex() for key in shown} == set(words) and len(words) > 15
    drawn = read_json(root / "gold_masks.json")
    for key, one in shown.items():
        box = masks.boxes([masks.check({"size": [HEIGHT, WIDTH], "counts": drawn[key.hex()]["counts"]})])[0].tolist()
        assert one.good == (box == list(A)), box
        assert box != [21, 2, 6, 6], "its truth is not plain"
        assert gold.pictures[key].file_name.startswith("val/")
        assert (gold.pictures[key].file_name, box) != ("val/20.png", [20, 14, 6, 6]), "a crowd may hold it"
    examples = {item["id"] for kind in (1, 2) for some in gold.examples(kind).values() for item in some}
    assert examples and not {name[1:] for name in examples} & {key[:16] for key in words}
    assert all(gold.example(name) is not None for name in examples)
    assert gold.example("e00") is None


def test_gold_is_made_once_and_never_over_somebodys_own(validated):
    iteration = validated(gold=5)
    iteration.answers_root.mkdir(parents=True)
    (iteration.answers_root / "gold.json").write_text("{}")
    gold = GoldMasks(iteration)
    assert gold.truth == {} and not (iteration.answers_root / "gold_masks.json").exists()
    assert gold.examples(1)["yes"] and gold.examples(1)["no"]


def test_no_gold_is_made_where_none_is_asked(validated):
    iteration = validated(gold=None)
    GoldMasks(iteration)
    assert not iteration.answers_root.exists()


def test_marked_masks_are_found_in_the_index(serve):
    served = serve(policy="per_mask")
    task = served.task()
    served.work("ann", task)
    item = task["items"][0]["id"]
    served.session.mark_gold(task["id"], item, "no")
    (one,) = [one for some in served.session.gold.by_category.values() for one in some]
    assert (one.prediction, one.good) == (served.prediction(task["items"][0]), False)
    assert read_gold(served.iteration.answers_root / "gold.json") == {one.key: False}
    with pytest.raises(ApiError, match="no such item"):
        served.session.mark_gold(task["id"], "other", "yes")


# --- what is asked beside the policy ----------------------------------------------------------------------------------


def test_an_iteration_is_complete_only_when_what_was_picked_is_answered(serve):
    served = serve(policy="thesis", start="root")
    world = served.iteration.world
    asked = set(served.session.thinking.reached.decision.question_row.tolist())
    rows = [row for row in range(len(world)) if row not in asked][:25]
    names = [f"{showing.FREE}{world.prediction[row]}" for row in rows]
    assert served.session.pick("ann", names, "all of these")["queued"] == 25
    served.finish()
    told = {record["prediction"] for record in served.session.records()}
    assert {int(world.prediction[row]) for row in rows} <= told


def test_what_is_complete_can_be_mended_until_the_run_goes_on_but_not_added_to(serve):
    served = serve(policy="per_mask", questions=20)
    while not served.session.complete:
        task = served.task()
        answers = [served.say(item, "no", reason="partial") for item in task["items"]]
        served.send("ann", task, *answers)
        served.session.submit("ann", task["id"], 60.0)
        served.session.wait()
    known = {record["prediction"] for record in served.session.records()}
    other = next(one for one in served.iteration.world.prediction.tolist() if one not in known)
    with pytest.raises(ApiError, match="All is answered"):
        served.task("ann", "edits", (f"{showing.FREE}{other}",))
    assert served.task("ann", "edits") is not None
