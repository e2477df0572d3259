import json
import logging

import numpy as np
import pytest

from segloop.annotation.edits import edit_work, edited_rles, judge_edited, read_edited, read_edits, write_edited
from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, EDITED, REASONS, REJECTED, Verdicts
from segloop.data.masks import to_json
from segloop.errors import SegloopError
from segloop.files import write_json

from .conftest import rle_of

DRAWN = rle_of((2, 2, 9, 9))
FINE = {
    "edit_id": "1",
    "prediction": 7,
    "mask_key": "0a" * 32,
    "annotator": "p",
    "segmentation": to_json(DRAWN),
    "seconds": 30.0,
}


def log_of(folder, *records):
    path = folder / "edits.jsonl"
    path.write_text("".join(json.dumps(FINE | record) + "\n" for record in records))
    return path


def test_edits_are_read_line_by_line(tmp_path):
    path = log_of(tmp_path, {}, {"edit_id": "2", "prediction": "9", "price": 1.5}, {})
    path.write_bytes(path.read_bytes() + b'{"edit_id": "3"')
    first, second = read_edits(path)
    assert first["mask_key"] == b"\x0a" * 32 and first["segmentation"] == DRAWN and first["price"] is None
    assert (second["prediction"], second["price"], second["time"]) == (9, 1.5, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": None}, "lacks segmentation"),
        ({"segmentation": {"size": [20, 20], "counts": "??"}}, "is no edit"),
        ({"segmentation": to_json(rle_of((0, 0, 0, 0)))}, "mask is empty"),
        ({"mask_key": "0a"}, "other than 64 digits"),
        ({"seconds": -3}, "nobody can spend"),
        ({"prediction": "x"}, "is no edit"),
    ],
)
def test_damaged_edits_are_named_by_their_line(tmp_path, change, message):
    with pytest.raises(SegloopError, match=rf"line 2.*{message}"):
        read_edits(log_of(tmp_path, {}, {"edit_id": "b"} | change))


def test_the_last_edit_of_a_mask_is_accepted(make_tree, make_world, make_index, caplog):
    world = make_world(make_tree([1] * 6))
    index = make_index(world, duplicates=1)
    count = len(index)
    nothing = np.zeros(count, np.int8)
    verdict, reason = np.full(count, REJECTED, np.int8), nothing.copy()
    reason[-1] = DUPLICATE
    verdicts = Verdicts(index.prediction, verdict, reason, np.full(count, 3), np.full(count, -1, np.int16), ("a",))
    keys = [key.tobytes() for key in index.mask_key]
    other = rle_of((0, 0, 3, 3))
    records = [
        {"edit_id": "1", "mask_key": keys[2], "prediction": 0, "segmentation": DRAWN, "annotator": "p"},
        {"edit_id": "2", "mask_key": keys[2], "prediction": 0, "segmentation": other, "annotator": "q"},
        {"edit_id": "3", "mask_key": bytes(32), "prediction": 0, "segmentation": other, "annotator": "q"},
        {"edit_id": "4", "mask_key": keys[-1], "prediction": 0, "segmentation": other, "annotator": "q"},
    ]
    with caplog.at_level(logging.WARNING, "segloop.annotation"):
        judged, kept = judge_edited(verdicts, index, records)
    assert "2 of 4 edits are stale" in caplog.text
    assert judged.verdict.tolist() == [ACCEPTED if row == 2 else REJECTED for row in range(count)]
    assert judged.reason.tolist() == [{2: EDITED, count - 1: DUPLICATE}.get(row, 0) for row in range(count)]
    assert [(one["edit_id"], one["prediction"]) for one in kept] == [("2", int(index.prediction[2]))]
    assert REASONS[EDITED] == "edited"
    assert verdicts.verdict.tolist() == [REJECTED] * count


def test_edited_json_keeps_masks_and_what_they_cost(tmp_path):
    (one,) = read_edits(log_of(tmp_path, {}))
    write_edited(tmp_path / "edited.json", [one], [one, one | {"seconds": None}], 36.0)
    found = read_edited(tmp_path / "edited.json")
    assert list(found) == [7] and found[7]["segmentation"] == DRAWN and found[7]["mask_key"] == "0a" * 32
    assert [work["price"] for work in edit_work(tmp_path / "edited.json")] == [pytest.approx(0.3), None]
    assert read_edited(None) == {} and edit_work(None) == []
    write_json(tmp_path / "edited.json", {})
    with pytest.raises(SegloopError, match="schema version None"):
        read_edited(tmp_path / "edited.json")


def test_masks_of_another_size_are_refused():
    rles = [rle_of((0, 0, 4, 4)), rle_of((1, 1, 4, 4))]
    edit = {"edit_id": "1", "segmentation": DRAWN}
    assert edited_rles(rles, [5, 6], {6: edit}, "here") == [rles[0], DRAWN]
    with pytest.raises(SegloopError, match="edit 1 has size"):
        edited_rles(rles, [5, 6], {6: edit | {"segmentation": {"size": [3, 3], "counts": b"9"}}}, "here")
