import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segloop.annotation.driver import annotate_oracle, annotate_people
from segloop.annotation.oracle import MATCH_SCHEMA
from segloop.annotation.probabilities import probability_path, read_probabilities
from segloop.annotation.tables import write_table
from segloop.annotation.verdicts import PREFIX, read_verdicts
from segloop.annotation.world import build_world
from segloop.config import AnnotationConfig, load
from segloop.errors import SegloopError
from segloop.store.index import write_index
from segloop.store.reduced import Reduced, write_reduced
from segloop.store.tree import write_tree


def test_a_file_of_floats_is_read(tmp_path):
    for dtype in (np.float16, np.float32, np.float64):
        np.save(tmp_path / "p.npy", np.array([0, 0.5, 1], dtype))
        values = read_probabilities(tmp_path / "p.npy", 3)
        assert values.dtype == np.float32
        assert values.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(3), ["float64 of shape (3,)", "the index has 2 predictions", "in its order"]),
        (np.zeros((2, 1)), ["shape (2, 1)"]),
        (np.zeros(2, int), ["int64", "one float for each"]),
        (np.array([0.5, np.nan]), ["holds nan at place 1", "0..1"]),
        (np.array([-0.1, 2]), ["holds -0.1 at place 0 (2 such values)"]),
        (np.array([{}, {}]), ["is no .npy file of numbers"]),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, values, words):
    path = tmp_path / "p.npy"
    np.save(path, values, allow_pickle=True)
    with pytest.raises(SegloopError) as error:
        read_probabilities(path, 2)
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text, not numbers", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "p.npy").write_bytes(content)
    with pytest.raises(SegloopError, match=r"is no \.npy file of numbers"):
        read_probabilities(tmp_path / "p.npy", 2)


def test_several_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", one=np.zeros(2), two=np.zeros(2))
    with pytest.raises(SegloopError, match="holds several arrays"):
        read_probabilities(tmp_path / "p.npz", 2)


def test_a_missing_file_says_what_to_write(tmp_path):
    with pytest.raises(SegloopError, match=r"none\.npy does not exist.*each of the 7 predictions"):
        read_probabilities(tmp_path / "none.npy", 7)


def test_where_probabilities_come_from():
    agreement = Path("agreement.npy")
    config = AnnotationConfig(policy="verifier", probability_file="mine/{iteration}.npy")
    assert probability_path(config, 3, agreement) == Path("mine/3.npy")
    assert probability_path(config.model_copy(update={"policy": "distillation"}), 3, agreement) == agreement
    assert probability_path(AnnotationConfig(), 3, None) is None


def test_a_verifier_without_a_file_is_refused_before_anything_runs():
    with pytest.raises(SegloopError, match=r"annotation\.probability_file: set it"):
        load({"annotation": {"policy": "verifier"}})
    load({"annotation": {"policy": "verifier", "probability_file": "p.npy"}})


def test_probabilities_follow_their_predictions(make_tree, make_world, make_index):
    tree = make_tree([1, 1, 1, 2, 2], nulls=2)
    index = make_index(make_world(tree, [1, 1, 1, 2, 2]), duplicates=3)
    probability = np.linspace(0, 1, len(index)).astype(np.float32)
    for world in (build_world(index, tree, None, probability), build_world(index, None, None, probability)):
        place = np.searchsorted(index.prediction, world.prediction)
        assert np.array_equal(world.probability, probability[place])
    assert build_world(index, tree).probability is None


@pytest.fixture
def inputs(tmp_path, make_tree, make_world, make_index):
    """Write the inputs of an iteration; return the arguments that both drivers take, and the index."""
    tree = make_tree([1] * 20, nulls=1)
    index = make_index(make_world(tree, [1] * 20), 2)
    ids = np.arange(1, len(index) + 1)
    iou = np.ones(len(index), np.float32)
    columns = {"prediction": index.prediction, "iou": iou, "truth_id": ids, "matched_iou": iou, "matched_id": ids}
    match = pa.table(columns, schema=MATCH_SCHEMA.with_metadata({"t_iou": "0.8"}))
    write_table(tmp_path / "truth_match.parquet", match)
    write_tree(tmp_path / "tree.zarr", tree)
    write_index(tmp_path / "index.zarr", index, {})
    write_reduced(tmp_path / "reduced.zarr", Reduced(tree.row_id, np.zeros((20, 4), np.float16), {}))
    written = ("answers.parquet", "verdicts.parquet", "certificates.json", "annotators.json")
    names = ("tree.zarr", "index.zarr", "reduced.zarr", *written)
    arguments = {name.partition(".")[0]: tmp_path / name for name in names}
    return arguments | {"iteration": 2, "seed": 0}, index


@pytest.mark.parametrize("word", ["verifier", "distillation"])
@pytest.mark.parametrize("annotator", ["oracle", "people"])
def test_both_drivers_accept_by_the_file(tmp_path, inputs, word, annotator):
    arguments, index = inputs
    probability = np.random.default_rng(0).random(len(index))
    np.save(tmp_path / "2.npy", probability)
    config = AnnotationConfig(policy=word, threshold=0.6, probability_file=str(tmp_path / "{iteration}.npy"))
    arguments |= {"config": config, "agreement": tmp_path / "2.npy" if word == "distillation" else None}
    if annotator == "oracle":
        annotate_oracle(**arguments, truth_match=tmp_path / "truth_match.parquet")
    else:
        (tmp_path / "answers.jsonl").write_text("")
        annotate_people(**arguments, recorded=tmp_path / "answers.jsonl")
    verdicts = read_verdicts(arguments["verdicts"])
    fresh = index.duplicate_of == 0
    assert np.array_equal(verdicts.verdict[fresh] == 1, (probability >= 0.6)[fresh])
    assert (verdicts.reason[fresh & (verdicts.verdict == 1)] == PREFIX).all()
    assert json.loads((tmp_path / "certificates.json").read_text())["certificates"] == []


def test_distillation_without_its_file_says_what_is_missing(tmp_path, inputs):
    arguments, _ = inputs
    arguments |= {"config": AnnotationConfig(policy="distillation"), "truth_match": tmp_path / "truth_match.parquet"}
    with pytest.raises(SegloopError, match=r"agreement\.npy"):
        annotate_oracle(**arguments)
    with pytest.raises(SegloopError, match="does not exist"):
        annotate_oracle(**arguments, agreement=tmp_path / "agreement.npy")


def test_a_replaced_file_is_read_again(tmp_path, inputs):
    arguments, index = inputs
    config = AnnotationConfig(policy="verifier", probability_file=str(tmp_path / "p.npy"))
    arguments |= {"config": config, "truth_match": tmp_path / "truth_match.parquet"}
    accepted = []
    for value in (0.0, 1.0):
        np.save(tmp_path / "p.npy", np.full(len(index), value))
        annotate_oracle(**arguments)
        verdicts = read_verdicts(arguments["verdicts"])
        accepted.append(np.count_nonzero(verdicts.reason == PREFIX))
    assert accepted == [0, 21]
