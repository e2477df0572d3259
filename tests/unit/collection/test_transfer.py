import json
import logging
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segloop.annotation.certificates import fixed_certificate, write_certificates
from segloop.annotation.oracle import MATCH_SCHEMA, match_truth
from segloop.annotation.probabilities import read_probabilities
from segloop.annotation.tables import write_table
from segloop.annotation.verdicts import REASONS, Verdicts, write_verdicts
from segloop.clustering.partition import partition_predictions
from segloop.collection.index import index_predictions
from segloop.collection.transfer import Transferred, ranked, retrieve_neighbours
from segloop.config import AnnotationConfig, ClusteringConfig, TransferConfig
from segloop.errors import SegloopError
from segloop.store.index import read_index
from segloop.store.predictions import PredictionWriter

from .conftest import SIDE, record_of, rle_of

# --- ranking ----------------------------------------------------------------------------------------------------------


@st.composite
def answers(draw):
    """Return neighbours of some queries: ids, 0 where there are fewer, and cosines."""
    queries, k = draw(st.integers(0, 6)), draw(st.integers(1, 4))
    found = draw(arrays(np.uint64, (queries, k), elements=st.integers(0, 8)))
    cosine = draw(arrays(np.float32, (queries, k), elements=st.sampled_from([0.1, 0.5, 0.5, 0.9])))
    cosine[found == 0] = -np.inf
    return found, cosine, np.arange(100, 100 + queries, dtype=np.uint64)


@given(answers())
def test_each_prediction_is_retrieved_once_by_its_best_similarity(given_answers):
    found, cosine, query = given_answers
    best: dict[int, tuple[float, int]] = {}
    for number, asking in enumerate(query.tolist()):
        for prediction, value in zip(found[number].tolist(), cosine[number].tolist(), strict=True):
            if prediction:
                best[prediction] = min(best.get(prediction, (np.inf, 0)), (-value, asking))
    chosen, by, similarity = ranked(found, cosine, query)
    order = sorted(best, key=lambda prediction: (best[prediction][0], prediction))
    assert chosen.tolist() == order
    assert [(-value, asking) for value, asking in zip(similarity.tolist(), by.tolist(), strict=True)] == [
        best[prediction] for prediction in order
    ]


# --- files ------------------------------------------------------------------------------------------------------------

BOX, AWAY = (0, 0, 10, 10), (0, 12, 6, 18)
EAST, NORTH, WEST = (1, 0), (0, 1), (-1, 0)


def write_store(path, embeddings, rects, shard=0, parts=None):
    """Write a store of one image a prediction, all of category 1."""
    width = len(embeddings[0]) if embeddings else 2
    with PredictionWriter(
        path, iteration=1, shard=shard, model_sha256="f", embedding_dim=width, embedding_parts=parts
    ) as writer:
        for number, (embedding, rect) in enumerate(zip(embeddings, rects, strict=True)):
            found = SimpleNamespace(
                score=np.array([0.9], np.float32),
                category=np.array([1], np.int32),
                box=np.array([rect], np.float32),
                masks=[rle_of(rect)],
                embedding=np.array([embedding], np.float32),
                predicted_iou=None,
            )
            writer.append(100 * shard + number + 1, SIDE, SIDE, found)
    return path


def index_of(folder, stores):
    common = {"earlier": [], "earlier_verdicts": [], "score": 0.0, "duplicates_iou": 0.8, "iteration": 1}
    index_predictions(predictions=stores, output=folder / "index.zarr", **common)
    return folder / "index.zarr"


@pytest.fixture
def retrieve(tmp_path):
    """Return a function that retrieves from a pool of two shards; its keys are fields of `TransferConfig`."""
    pool, labelled = tmp_path / "pool", tmp_path / "labelled"
    near_east = [(1, 0.01 * number) for number in range(1, 4)]
    stores = [
        write_store(pool / "0.zarr", [*near_east, NORTH], [BOX] * 4),
        write_store(pool / "1.zarr", [(1, 0), (0, 0), (0.1, 1)], [BOX] * 3, shard=1),
    ]
    pool_index = index_of(pool, stores)
    partition_predictions(
        index=pool_index, predictions=stores, output=pool / "partitions.zarr", config=ClusteringConfig(), seed=0
    )
    # Of three predictions on the labelled set the second misses its object, and the third has no direction.
    queries = [write_store(labelled / "0.zarr", [EAST, NORTH, (0, 0)], [BOX, AWAY, BOX])]
    index = index_of(labelled, queries)
    truth = [record_of(number, number, 99, BOX) for number in (1, 2, 3)]
    (labelled / "truth.json").write_text(json.dumps({"annotations": truth}))
    match = labelled / "match.parquet"
    known = {"index": index, "predictions": queries}
    match_truth(**known, truth=labelled / "truth.json", output=match, t_iou=0.8, workers=1, any_category=True)

    def run(embedding="box_head", files=None, **transfer):
        given = {"truth_match": match, "pool_index": pool_index, "partitions": pool / "partitions.zarr"} | known
        outputs = {name: tmp_path / name for name in ("retrieved", "accepted", "answers")}
        config = TransferConfig.model_validate({"neighbours": 2} | transfer)
        retrieve_neighbours(**(given | (files or {})), **outputs, embedding=embedding, transfer=config, seed=0)
        accepted = read_probabilities(outputs["accepted"], len(read_index(pool_index)))
        assert outputs["answers"].read_bytes() == b""
        return json.loads(outputs["retrieved"].read_text()), accepted

    run.pool = read_index(pool_index).prediction
    return run


def test_neighbours_of_what_was_predicted_well_are_retrieved(retrieve):
    found, accepted = retrieve()
    assert (found["embedding"], found["predictions"], found["good"]) == ("box_head", 3, 2)
    # Of the query to the east: the same direction in the other shard, then the one that turns away least.
    names = retrieve.pool[[4, 0]]
    assert found["masks"]["prediction"] == [str(name) for name in names]
    assert found["masks"]["cosine"] == pytest.approx([1, 1], abs=1e-3)
    assert retrieve.pool[accepted == 1].tolist() == sorted(names.tolist())
    assert accepted.sum() == 2


def test_a_lower_threshold_keeps_more_queries(retrieve):
    found, accepted = retrieve(neighbours=20, t_iou=0.0)
    assert found["good"] == 2, "a mask that misses has an IoU of 0, which is not above 0"
    assert accepted.tolist() == [1, 1, 1, 1, 1, 0, 1], "all of the pool but what has no direction"
    assert len(set(found["masks"]["query"])) == 1


def test_the_most_similar_masks_are_collected_first(retrieve):
    whole, _ = retrieve(neighbours=6)
    some, accepted = retrieve(neighbours=6, masks=3)
    assert {name: column[:3] for name, column in whole["masks"].items()} == some["masks"]
    assert accepted.sum() == 3
    assert whole["masks"]["cosine"] == sorted(whole["masks"]["cosine"], reverse=True)


def test_nothing_good_retrieves_nothing(retrieve, caplog):
    with caplog.at_level(logging.WARNING):
        found, accepted = retrieve(t_iou=1.0)
    assert (found["good"], found["masks"]["prediction"], accepted.sum()) == (0, [], 0)
    assert "0 of 3 predictions on the labelled set are good" in caplog.text


def test_an_embedding_that_the_model_lacks_is_named(retrieve):
    with pytest.raises(SegloopError, match="holds no embedding of mask_iou_head"):
        retrieve("box_and_mask_iou_head")


def test_files_that_do_not_belong_together_are_refused(retrieve, tmp_path):
    empty = {name: np.zeros(0, MATCH_SCHEMA.field(name).type.to_pandas_dtype()) for name in MATCH_SCHEMA.names}
    match = tmp_path / "other.parquet"
    write_table(match, pa.table(empty, schema=MATCH_SCHEMA.with_metadata({"t_iou": "0.8"})))
    with pytest.raises(SegloopError, match="Run match_transfer again"):
        retrieve(files={"truth_match": match})
    other = index_of(tmp_path / "small", [write_store(tmp_path / "small/0.zarr", [EAST], [BOX])])
    with pytest.raises(SegloopError, match=r"partitions\.zarr and .*index\.zarr hold different predictions"):
        retrieve(files={"pool_index": other})


def test_categories_of_the_other_set_are_not_compared(tmp_path):
    store = write_store(tmp_path / "0.zarr", [EAST, EAST], [BOX, BOX])
    known = {"index": index_of(tmp_path, [store]), "predictions": [store], "t_iou": 0.8, "workers": 1}
    truth = [record_of(1, 1, 99, BOX), record_of(2, 1, 1, AWAY), record_of(3, 2, 99, BOX, iscrowd=1)]
    (tmp_path / "truth.json").write_text(json.dumps({"annotations": truth}))
    for any_category, expected in ((True, [1, 0]), (False, [0, 0])):
        output = tmp_path / "match.parquet"
        match_truth(**known, truth=tmp_path / "truth.json", output=output, any_category=any_category)
        columns = pq.read_table(output)
        assert columns.column("truth_id").to_pylist() == expected
        assert columns.column("iou").to_pylist() == [float(bool(one)) for one in expected]


# --- what it came to --------------------------------------------------------------------------------------------------


@pytest.fixture
def transferred(tmp_path):
    """Four masks were retrieved, one of them found to be bad by an audit of two questions."""
    ids = np.arange(1, 6, dtype=np.uint64)
    words = np.array([REASONS.index(word) for word in ("prefix", "prefix", "answered", "answered", "")], np.int8)
    verdict, place = np.array([1, 1, 1, -1, 0], np.int8), np.array([0, 0, 0, -1, -1], np.int16)
    files = {name: tmp_path / name for name in ("retrieved", "collected", "verdicts", "certificates", "evaluation")}
    write_verdicts(files["verdicts"], Verdicts(ids, verdict, words, np.full(5, -1), place, ("1:all",)))
    numbers = {"target": 0.9, "delta": 0.05, "known_good": 0, "unknown": 4, "asked": 2, "bad": 1}
    write_certificates(files["certificates"], (fixed_certificate(certificate_id="1:all", category=None, **numbers),))
    masks = {"prediction": ["1", "2", "3", "4"], "query": ["9"] * 4, "cosine": [1.0] * 4}
    content = {
        "retrieved": {"embedding": "box_head", "predictions": 50, "good": 20, "masks": masks},
        "collected": {"annotations": [{}] * 3},
        "evaluation": {"ap": 0.25, "ap50": 0.5, "seconds": 1},
    }
    for name, value in content.items():
        files[name].write_text(json.dumps(value))
    iou = np.array([0.9, 0.5, 0.85, 0.2, 0.95], np.float32)
    columns = {"prediction": ids, "iou": iou, "truth_id": ids, "matched_iou": iou, "matched_id": ids}
    match = pa.table(columns, schema=MATCH_SCHEMA.with_metadata({"t_iou": "0.8"}))
    write_table(tmp_path / "match.parquet", match)
    return Transferred(**files)


def test_what_an_embedding_came_to(transferred, tmp_path):
    row = transferred.row(tmp_path / "match.parquet", AnnotationConfig(t_iou=0.8))
    assert row.pop("precision") == pytest.approx(2 / 3)
    assert row.pop("recall") == pytest.approx(2 / 3)
    assert 0 < row.pop("certified") < 1
    assert row == {
        "embedding": "box_head",
        "predictions": 50,
        "good": 20,
        "retrieved": 4,
        "collected": 3,
        "audited": 2,
        "ap": 0.25,
        "ap50": 0.5,
    }


def test_without_truth_and_audit_little_is_known(transferred):
    write_certificates(transferred.certificates, ())
    words = np.full(2, REASONS.index("prefix"), np.int8)
    columns = np.array([1, 1], np.int8), words, np.full(2, -1), np.full(2, -1, np.int16)
    write_verdicts(transferred.verdicts, Verdicts(np.arange(1, 3, dtype=np.uint64), *columns))
    row = transferred.row(None, AnnotationConfig())
    assert (row["precision"], row["certified"], row["audited"], row["ap"]) == (None, None, 0, 0.25)
