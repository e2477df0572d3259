import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segloop.collection.ledger import tally_iteration, tally_run, value_per_mask
from segloop.config import LoopConfig, PricesConfig
from segloop.errors import SegloopError
from segloop.store.index import read_index

DISC, STAR, ELSEWHERE = 1, 7, (0, 0, 5, 5)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def benchmark(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["s\th:m:s\tcpu_time", *("\t".join([str(s), "-", str(cpu)]) for s, cpu in rows)]) + "\n")
    return path


@pytest.fixture
def asked(run, record):
    """Three discs and a star were predicted; two discs were asked, a disc and a star collected."""
    run.pool([3])
    rows = [(3, DISC, 0.9 - 0.1 * n, (n, 0, n + 6, 6)) for n in (0, 4, 8)] + [(3, STAR, 0.5, (0, 10, 8, 18))]
    index = run.index(1, [run.store(1, 0, rows, [3])], score=0.1)
    ids = read_index(index).prediction.tolist()
    common = {"seconds": 2.0, "price": 0.25}
    records = [
        common | {"prediction": ids[0], "annotator": "p"},
        common | {"prediction": ids[1], "annotator": "q", "purpose": "audit"},
        common | {"prediction": ids[1], "annotator": "p", "purpose": "audit", "price": None},
        common | {"prediction": 5, "annotator": "q", "purpose": "gold", "seconds": 1.0},
    ]
    collected = run.folder / "collected.json"
    run.coco(collected, [3], [record(1, 3, DISC, ELSEWHERE), record(2, 3, STAR, ELSEWHERE)])
    return {
        "iteration": 1,
        "evaluation": write(run.folder / "evaluation.json", {"ap_per_category": {"disc": 0.75, "star": 0.25}}),
        "models": [write(run.folder / "model/model.json", {"device": "cuda:0"}).parent],
        "benchmarks": {
            "train_detector": [benchmark(run.folder / "b/train.tsv", (3600, 9000))],
            "predict_shard": [benchmark(run.folder / f"b/{n}.tsv", (900, "NA")) for n in range(2)],
            "join_trees": [benchmark(run.folder / "b/join.tsv", (1800, 5400), (1800, 10))],
            "collect_masks": [run.folder / "b/absent.tsv"],
        },
        "prices": PricesConfig(gpu_hour=2.0, cpu_hour=0.1),
        "loop": LoopConfig(value_per_mask=3.0),
        "output": run.folder / "ledger.json",
        "index": index,
        "answers": run.answers(1, records),
        "collected": collected,
    }


def ledger_of(arguments):
    tally_iteration(**arguments)
    return json.loads(arguments["output"].read_text())


def test_people_are_counted_by_purpose_and_annotator(asked):
    people = ledger_of(asked)["people"]
    assert {name: people[name] for name in ("questions", "seconds", "dollars")} == {
        "questions": 4,
        "seconds": 7.0,
        "dollars": 0.75,
    }
    assert people["by_purpose"]["audit"] == {"questions": 2, "redraws": 0, "edits": 0, "seconds": 4.0, "dollars": 0.25}
    assert set(people["by_purpose"]) == {"decide", "audit", "gold"}
    assert people["by_annotator"] == {
        "p": {"questions": 2, "redraws": 0, "edits": 0, "seconds": 4.0, "dollars": 0.25},
        "q": {"questions": 2, "redraws": 0, "edits": 0, "seconds": 3.0, "dollars": 0.5},
    }


def test_a_job_on_a_gpu_pays_for_it_and_the_others_for_the_cores_they_used(asked):
    machine = ledger_of(asked)["machine"]
    assert machine["steps"]["train_detector"] == {"gpu_hours": 1.0, "cpu_hours": 0.0, "dollars": 2.0}
    assert machine["steps"]["predict_shard"]["gpu_hours"] == 0.5
    # 5,400 s of CPU in the first run, and 1,800 s of a core that idled in the second.
    assert machine["steps"]["join_trees"] == {"gpu_hours": 0.0, "cpu_hours": 2.0, "dollars": 0.2}
    assert machine["steps"]["collect_masks"] == {"gpu_hours": 0.0, "cpu_hours": 0.0, "dollars": 0.0}
    assert (machine["gpu_hours"], machine["cpu_hours"], machine["dollars"]) == (1.5, 2.0, pytest.approx(3.2))


def test_a_training_counts_its_own_gpu_hours_over_all_gpus_and_restarts(asked, run):
    write(run.folder / "model/model.json", {"device": "cuda", "gpu_hours": 8.0})
    machine = ledger_of(asked)["machine"]
    assert machine["steps"]["train_detector"] == {"gpu_hours": 8.0, "cpu_hours": 0.0, "dollars": 16.0}
    assert machine["gpu_hours"] == 8.5


def test_a_model_trained_on_a_cpu_held_no_gpu(asked, run):
    write(run.folder / "model/model.json", {"device": "cpu"})
    machine = ledger_of(asked)["machine"]
    assert (machine["gpu_hours"], machine["cpu_hours"]) == (0.0, 2.5 + 0.5 + 2.0)


def test_everything_together_and_by_accepted_mask(asked):
    ledger = ledger_of(asked)
    assert ledger["accepted"] == 2
    assert ledger["total_dollars"] == pytest.approx(0.75 + 3.2)
    assert ledger["per_accepted_mask"] == {"questions": 2.0, "seconds": 3.5, "total_dollars": pytest.approx(3.95 / 2)}
    assert ledger["value"] == 6.0
    assert ledger["categories"] == {
        "disc": {
            "questions": 3,
            "redraws": 0,
            "edits": 0,
            "seconds": 6.0,
            "dollars": 0.5,
            "accepted": 1,
            "value_per_mask": 3.0,
        },
        "star": {
            "questions": 0,
            "redraws": 0,
            "edits": 0,
            "seconds": 0.0,
            "dollars": 0.0,
            "accepted": 1,
            "value_per_mask": 3.0,
        },
    }


def test_iteration_0_costs_machines_alone(asked):
    seed = asked | {"iteration": 0, "index": None, "answers": None, "collected": None}
    ledger = ledger_of(seed)
    assert (ledger["people"]["questions"], ledger["accepted"], ledger["per_accepted_mask"]) == (0, 0, None)
    assert (ledger["value"], ledger["total_dollars"]) == (None, pytest.approx(3.2))


def test_nothing_asked_and_nothing_collected(asked, run):
    run.coco(asked["collected"], [3], [])
    ledger = ledger_of(asked | {"answers": run.answers(1, [])})
    assert (ledger["people"]["questions"], ledger["people"]["by_annotator"]) == (0, {})
    assert (ledger["per_accepted_mask"], ledger["value"]) == (None, 0.0)


def test_a_value_for_an_unknown_category_is_named(asked):
    with pytest.raises(SegloopError, match=r"names the category 'disk', which the seed set lacks; it has disc, star"):
        ledger_of(asked | {"loop": LoopConfig(value_per_mask={"disk": 1.0})})


def test_a_file_that_is_no_benchmark_is_named(asked, run):
    (run.folder / "b/join.tsv").write_text("seconds\n5\n")
    with pytest.raises(SegloopError, match=r"join\.tsv is not a benchmark"):
        ledger_of(asked)


def test_a_run_is_the_sum_of_its_iterations(asked, run):
    seed = asked | {"iteration": 0, "index": None, "answers": None, "collected": None, "output": run.folder / "0.json"}
    paths = [seed["output"], asked["output"], run.folder / "2.json"]
    for arguments in (seed, asked, asked | {"iteration": 2, "output": paths[2]}):
        tally_iteration(**arguments)
    tally_run(ledgers=paths, prices=asked["prices"], output=run.folder / "run.json")
    whole = json.loads((run.folder / "run.json").read_text())
    assert [one["iteration"] for one in whole["iterations"]] == [0, 1, 2]
    total = whole["total"]
    assert (total["accepted"], total["people"]["questions"], total["value"]) == (4, 8, 12.0)
    assert total["machine"]["gpu_hours"] == 4.5
    assert total["per_accepted_mask"]["total_dollars"] == pytest.approx((3 * 3.2 + 2 * 0.75) / 4)
    assert whole["prices"] == {"gpu_hour": 2.0, "cpu_hour": 0.1}


# --- what masks are worth ---------------------------------------------------------------------------------------------


def test_values_as_configured():
    ap = {"disc": 0.5, "star": None}
    assert value_per_mask(LoopConfig(), ap) is None
    assert value_per_mask(LoopConfig(value_per_mask=2.0), ap) == {"disc": 2.0, "star": 2.0}
    assert value_per_mask(LoopConfig(value_per_mask={"star": 2.0}), ap) == {"disc": 0.0, "star": 2.0}


def test_masks_of_what_the_detector_finds_hard_are_worth_more():
    loop = LoopConfig(value_per_mask=2.0, value_by_ap=True)
    # 1 - AP is .2, .6 and, for the unknown one, the mean .4.
    values = value_per_mask(loop, {"easy": 0.8, "hard": 0.4, "unknown": None})
    assert values == {"easy": pytest.approx(1.0), "hard": pytest.approx(3.0), "unknown": pytest.approx(2.0)}
    assert value_per_mask(loop, {"perfect": 1.0}) == {"perfect": 2.0}
    assert value_per_mask(loop, {"unknown": None}) == {"unknown": 2.0}


AP = st.dictionaries(st.sampled_from("abcdef"), st.one_of(st.none(), st.floats(0, 1)), min_size=1)


@settings(max_examples=100, deadline=None)
@given(ap=AP, value=st.floats(0.01, 100))
def test_the_mean_value_stays(ap, value):
    values = value_per_mask(LoopConfig(value_per_mask=value, value_by_ap=True), ap)
    assert values.keys() == ap.keys()
    assert min(values.values()) >= 0
    assert sum(values.values()) / len(values) == pytest.approx(value)


def test_edits_cost_time_and_are_no_questions(asked):
    ids = read_index(asked["index"]).prediction.tolist()
    work = [{"prediction": str(ids[0]), "annotator": "p", "seconds": 30.0, "price": 0.25}]
    edited = write(asked["output"].parent / "edited.json", {"schema": 1, "masks": [], "work": work})
    ledger = ledger_of(asked | {"edited": edited})
    people = ledger["people"]
    assert (people["questions"], people["edits"], people["seconds"], people["dollars"]) == (4, 1, 37.0, 1.0)
    assert people["by_purpose"]["edit"] == {"questions": 0, "redraws": 0, "edits": 1, "seconds": 30.0, "dollars": 0.25}
    assert ledger["categories"]["disc"]["edits"] == 1


def test_redraws_cost_time_and_are_no_questions(asked):
    ids = read_index(asked["index"]).prediction.tolist()
    redraws = [
        {"prediction": str(ids[0]), "annotator": "p", "seconds": 80.0, "price": 0.5},
        {"prediction": str(ids[2]), "annotator": "r", "seconds": 60.0, "price": 0.25},
        {"prediction": "5", "annotator": "r", "seconds": None, "price": None},
    ]
    quality = write(asked["output"].parent / "quality.json", {"redraws": redraws})
    ledger = ledger_of(asked | {"quality": quality})
    people = ledger["people"]
    assert (people["questions"], people["redraws"], people["seconds"], people["dollars"]) == (4, 3, 147.0, 1.5)
    assert people["by_purpose"]["redraw"] == {
        "questions": 0,
        "redraws": 3,
        "edits": 0,
        "seconds": 140.0,
        "dollars": 0.75,
    }
    assert people["by_annotator"]["p"] == {"questions": 2, "redraws": 1, "edits": 0, "seconds": 84.0, "dollars": 0.75}
    assert people["by_annotator"]["r"] == {"questions": 0, "redraws": 2, "edits": 0, "seconds": 60.0, "dollars": 0.25}
    kinds = ledger["categories"].values()
    assert sum(one["redraws"] for one in kinds) == 2, "the mask of another run is in no category"
    assert sum(one["seconds"] for one in kinds) == 6.0 + 140.0
    assert ledger["per_accepted_mask"]["questions"] == 2.0
    assert ledger["per_accepted_mask"]["seconds"] == 73.5
