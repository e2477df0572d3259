import json

import pytest

from segloop.collection.collect import collect_masks
from segloop.collection.merge import merge_training_set, upper_bound_set
from segloop.errors import SegloopError
from segloop.files import write_json
from segloop.store.index import read_index

RECTS = [(0, 0, 10, 10), (12, 12, 16, 16), (0, 12, 5, 18), (11, 0, 19, 8), (6, 13, 9, 16)]


@pytest.fixture
def iteration(run):
    """Image 3 of the pool (whose id the seed set uses too) with every kind of verdict; image 12 with none accepted."""
    run.pool([3, 12])
    rows = [(3, 1, score, rect) for score, rect in zip((0.9, 0.8, 0.7, 0.6, 0.4), RECTS, strict=True)]
    store = run.store(1, 0, [*rows, (12, 7, 0.9, RECTS[0])], [3, 12])
    path = run.index(1, [store])
    index = read_index(path)
    verdicts = run.verdicts(
        1, index.prediction, [1, -1, -1, 0, -1], ["cluster", "answered", "answered", "", "cluster"], [8, -1, -1, -1, 8]
    )
    keys = [key.tobytes() for key in index.mask_key]
    ids = index.prediction.tolist()
    answers = run.answers(
        1,
        [
            {"prediction": ids[1], "mask_key": keys[1], "reply": "no", "reason": "bad boundary"},
            {"prediction": ids[2], "mask_key": keys[2], "reply": "no", "reason": "wrong class"},
            {"prediction": ids[0], "mask_key": keys[0], "reply": "no", "reason": "wrong class"},
        ],
    )
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
        "seed_set": run.seed_set,
        "collected": [collected],
        "predictions": [store],
        "verdicts": verdicts,
        "answers": answers,
        "output": run.folder / "training_set.json",
        "ignore_unaccepted": True,
    }


def merged(arguments):
    merge_training_set(**arguments)
    return json.loads(arguments["output"].read_text())


def test_iteration_0_is_the_seed_set(run):
    output = run.folder / "training_set.json"
    merge_training_set(
        seed_set=run.seed_set,
        collected=[],
        predictions=[],
        verdicts=None,
        answers=None,
        output=output,
        ignore_unaccepted=True,
    )
    assert output.read_bytes() == run.seed_set.read_bytes()


def test_seed_and_pool_images_have_ids_of_their_own(iteration):
    found = merged(iteration)
    assert [(i["id"], i["file_name"], i["source"], i.get("pool_id")) for i in found["images"]] == [
        (1, "seed/5.jpg", "seed", None),
        (2, "seed/3.jpg", "seed", None),
        (3, "pool/3.jpg", "pool", 3),
    ]
    ids = [annotation["id"] for annotation in found["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    by_image = {image["id"]: image["source"] for image in found["images"]}
    for annotation in found["annotations"]:
        assert (annotation["source"] == "seed") == (by_image[annotation["image_id"]] == "seed")


def test_seed_annotations_stay_on_their_images_as_they_were(iteration):
    seed = [one for one in merged(iteration)["annotations"] if one["source"] == "seed"]
    assert [(one["image_id"], one["category_id"], one["iscrowd"]) for one in seed] == [(2, 1, 0), (1, 7, 1)]


def test_what_was_not_accepted_is_ignored_and_a_wrong_class_is_background(iteration):
    annotations = merged(iteration)["annotations"]
    collected = [one for one in annotations if one["source"] == "collected"]
    ignored = [one for one in annotations if one["source"] == "unaccepted"]
    assert [one["bbox"] for one in collected] == [[0, 0, 10, 10]]
    assert collected[0]["iscrowd"] == 0
    assert "provenance" not in collected[0]
    # Rejected, undecided and below the score of the index; not the wrong class (RECTS[2]).
    assert [one["bbox"] for one in ignored] == [[12, 12, 4, 4], [11, 0, 8, 8], [6, 13, 3, 3]]
    assert all(one["iscrowd"] == 1 for one in ignored)
    assert all(one["image_id"] == 3 for one in ignored)


def test_ignoring_can_be_switched_off(iteration):
    annotations = merged(iteration | {"ignore_unaccepted": False})["annotations"]
    assert {one["source"] for one in annotations} == {"seed", "collected"}


def test_images_of_several_iterations_are_one(iteration, run):
    again = json.loads(iteration["collected"][0].read_text())
    second = run.folder / "second.json"
    write_json(second, again)
    found = merged(iteration | {"collected": [*iteration["collected"], second]})
    assert len(found["images"]) == 3
    assert sum(one["source"] == "collected" for one in found["annotations"]) == 2
    again["images"][0]["file_name"] = "pool/other.jpg"
    write_json(second, again)
    with pytest.raises(SegloopError, match=r"second\.json calls image 3 of the pool pool/other\.jpg"):
        merged(iteration | {"collected": [*iteration["collected"], second]})


def test_duplicates_of_accepted_masks_are_not_ignored(iteration, run):
    store = run.store(2, 0, [(3, 1, 0.9, (0, 0, 10, 9)), (3, 1, 0.8, RECTS[3])], [3])
    ids = read_index(run.index(2, [store], [iteration["predictions"]])).prediction
    verdicts = run.verdicts(2, ids, [1, -1], ["duplicate", "cluster"], [-1, 3])
    found = merged(iteration | {"predictions": [store], "verdicts": verdicts, "answers": run.answers(2, [])})
    ignored = [one["bbox"] for one in found["annotations"] if one["source"] == "unaccepted"]
    assert ignored == [[11, 0, 8, 8]]


def test_nothing_collected_leaves_the_seed_set(iteration, run):
    run.coco(iteration["collected"][0], [], [])
    found = merged(iteration)
    assert {image["source"] for image in found["images"]} == {"seed"}
    assert {one["source"] for one in found["annotations"]} == {"seed"}


def test_upper_bound_is_seed_and_all_truth_of_the_pool(run, record):
    run.pool([3, 12])
    truth = [record(1, 3, 1, RECTS[0]), record(2, 3, 7, RECTS[1], iscrowd=1), record(3, 99, 1, RECTS[0])]
    run.coco(run.truth, [3, 12, 99], truth, folder="elsewhere")
    output = run.folder / "upper.json"
    upper_bound_set(seed_set=run.seed_set, truth=run.truth, shards=run.shards, output=output)
    found = json.loads(output.read_text())
    # Image 99 was not sampled; image 12 holds no object, which is knowledge too.
    assert [image["file_name"] for image in found["images"]] == [
        "seed/5.jpg",
        "seed/3.jpg",
        "pool/3.jpg",
        "pool/12.jpg",
    ]
    assert [(one["image_id"], one["iscrowd"]) for one in found["annotations"]] == [(2, 0), (1, 1), (3, 0), (3, 1)]


def test_truth_of_another_pool_is_refused(run):
    run.pool([1])
    run.coco(run.truth, [99], [])
    with pytest.raises(SegloopError, match="no image of the pool"):
        upper_bound_set(seed_set=run.seed_set, truth=run.truth, shards=run.shards, output=run.folder / "upper.json")
