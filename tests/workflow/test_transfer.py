"""What looks like objects of another labelled set is collected unasked: only by a target of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from segloop.files import read_json
from segloop.ids import unpack_prediction_ids

from ..loops import Loop

pytestmark = pytest.mark.workflow

PLACES = {"format": "places_challenge", "annotations": "validation/annotations", "images": "validation/images"}
VALIDATION = PLACES | {"categories": "categories.txt"}


def test_masks_are_transferred_from_another_labelled_set(undisturbed: Loop, tmp_path: Path) -> None:
    """The validation set serves as the other labelled set."""
    loop = undisturbed.copy(
        tmp_path / "run",
        transfer=VALIDATION | {"t_iou": 0.1, "neighbours": 3, "masks": 8, "shards": 2},
        annotation={"audit": {"questions": 4}},
    )
    # The asked iterations stay as they are: their own audit is not what is tested here.
    output = loop.run("transfer", "--rerun-triggers", "mtime")
    assert "annotate_oracle" not in output.rpartition("Job stats:")[2]
    folder = loop.directory / "results/transfer/iter_1/box_head"
    retrieved, certificates = (read_json(folder / name) for name in ("retrieved.json", "certificates.json"))
    names = [int(name) for name in retrieved["masks"]["prediction"]]
    assert 0 < len(set(names)) == len(names) <= 8
    assert retrieved["masks"]["cosine"] == sorted(retrieved["masks"]["cosine"], reverse=True)
    annotations = read_json(folder / "collected.json")["annotations"]
    collected = {int(one["provenance"]["prediction"]) for one in annotations}
    (audit,) = certificates["certificates"]
    assert audit["asked"] == min(4, len(names)) and audit["bad"] == len(names) - len(collected)
    assert collected <= set(names)
    assert {int(shard) for shard in unpack_prediction_ids(np.array(names, np.uint64))[1]} <= {0, 1}
    table = read_json(loop.directory / "results/transfer/transfer.json")
    (row,) = table["transfer"]
    assert (row["embedding"], row["retrieved"], row["collected"]) == ("box_head", len(names), len(collected))
    assert row["certified"] == pytest.approx(audit["claimed"]) and row["precision"] is not None
    assert 0 <= row["ap"] <= 1
    assert [one["iteration"] for one in table["asked"]] == [0, 1, 2] and set(table["control"]) == {"1", "2"}
    assert "transfer, box_head" in (loop.directory / "results/transfer/transfer.html").read_text()
    # A model of its own, and nothing of it in the asked run.
    weights = [loop.directory / place / "model/model.json" for place in ("results/iter_1", folder)]
    assert len({read_json(path)["weights_sha256"] for path in weights}) == 2
    assert "Nothing to be done" in loop.run("transfer", "--rerun-triggers", "mtime")
    # People are not asked: all that was retrieved is collected, and nothing is claimed.
    changes = {"transfer": yaml.safe_load(loop.configfile.read_text())["transfer"]}
    people = loop.copy(tmp_path / "people", annotation={"annotator": "people", "audit": {"questions": 4}}, **changes)
    people.remove("results/transfer/iter_1/box_head/*.parquet", "results/transfer/iter_1/box_head/collected.json")
    people.run("results/transfer/iter_1/box_head/collected.json", "--rerun-triggers", "mtime")
    folder = people.directory / "results/transfer/iter_1/box_head"
    assert len(read_json(folder / "collected.json")["annotations"]) == len(names)
    assert read_json(folder / "certificates.json")["certificates"] == []


def test_without_another_set_there_is_no_such_target(undisturbed: Loop) -> None:
    assert "transfer" in undisturbed.run("transfer", "-n", status=1)
    assert not (undisturbed.directory / "results/transfer").exists()


def test_the_plan_asks_for_a_model_of_each_embedding(new_loop: Callable[..., Loop]) -> None:
    embeddings = ["box_head", "box_and_mask_iou_head"]
    people = {"annotator": "people"}
    loop = new_loop(transfer=VALIDATION | {"embeddings": embeddings}, annotation=people, pool={"truth": None})
    loop.configfile.write_text(loop.configfile.read_text().replace("upper_bound: true", "upper_bound: false"))
    output = loop.run("transfer", "-n", "-q", "rules")
    for name, count in {"train_transfer": 2, "retrieve_neighbours": 2, "predict_transfer": 1}.items():
        assert any(line.split() == [name, str(count)] for line in output.splitlines()), (name, output)
    assert "match_truth" not in output
