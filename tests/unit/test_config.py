import json
from pathlib import Path

import pytest
import yaml

from segloop import config
from segloop.errors import SegloopError


def test_defaults_are_valid_and_hold_the_thesis_numbers() -> None:
    loaded = config.load({})
    assert loaded.annotation.t_iou == 0.8
    assert loaded.index.score == 0.5
    assert loaded.detector.architecture == "r101_fpn"
    assert loaded.detector.embedding_dim == 1024
    assert loaded.loop.iterations == 6


@pytest.mark.parametrize("name", ["demo", "nuclei", "ade20k_places", "default"])
def test_every_configuration_file_is_valid(repository: Path, name: str) -> None:
    config.load_file(repository / "config" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainig": {}}, ["trainig is not a key", "did you mean training?"]),
        ({"training": {"stepz": 1}}, ["training.stepz is not a key", "did you mean training.steps?"]),
        ({"pool": {"t_iou": 0.5}}, ["pool.t_iou is not a key", "did you mean annotation.t_iou?"]),
        ({"pool": {"truth": {"annotation": "x"}}}, ["did you mean pool.truth.annotations?"]),
        ({"annotation": {"xyzzy": 1}}, ["annotation.xyzzy is not a key", "valid here: annotator"]),
        ({"seed": "one"}, ["seed:", "(it is 'one')"]),
        ({"training": {"scale_jitter": [2, 1]}}, ["training.scale_jitter", "lower end comes first"]),
        ({"prediction": {"store_score": 0.9}}, ["prediction.store_score", "lower store_score"]),
        ({"prediction": {"score": "class_times_iou"}}, ["prediction.score", "detector.mask_iou_head: true"]),
        ({"training": {"mask_iou_steps": 9}}, ["training.mask_iou_steps", "detector.mask_iou_head: true"]),
        (
            {"training": {"mask_iou_steps": 9, "evaluate_steps": 3, "keep": "best"}},
            ["training.mask_iou_steps", "keep: last"],
        ),
        (
            {
                "prediction": {"score": "class_times_iou"},
                "detector": {"mask_iou_head": True},
                "annotation": {"policy": "iccv21"},
            },
            ["iccv21 multiplies", "prediction.score: class"],
        ),
        ({"annotation": {"annotator": "oracle"}}, ["annotation.annotator: oracle", "pool.truth.annotations"]),
        ({"clustering": {"scope": "global"}}, ["annotation.start: category", "cut:S or top:K"]),
        ({"loop": {"upper_bound": True}}, ["loop.upper_bound", "pool.truth"]),
        ({"annotation": {"start": "cut:0"}}, ["annotation.start"]),
        ({"simulate": {"policies": ["thesis"]}}, ["simulate.policies", "pool.truth.annotations"]),
        ({"simulate": {"policies": ["verifier"]}, "pool": {"truth": {}}}, ["annotation.probability_file"]),
        ({"simulate": {"policies": ["tesis"]}}, ["simulate.policies.0", "(it is 'tesis')"]),
    ],
)
def test_errors_name_the_key_and_the_remedy(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SegloopError) as error:
        config.load(values)
    for word in words:
        assert word in str(error.value)


def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegloopError, match="does not exist"):
        config.load_file(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(SegloopError, match="holds a list"):
        config.load_file(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(SegloopError, match="not valid YAML"):
        config.load_file(tmp_path / "broken.yaml")


def test_a_message_repeats_no_more_of_a_value_than_a_person_reads() -> None:
    for value, shown in ((10**400, "1000"), (16**5000, "a very large number"), ("x" * 10_000, "x" * 100)):
        with pytest.raises(SegloopError, match=shown) as found:
            config.load({"index": {"score": value}})
        assert len(str(found.value)) < 1000


def test_generated_documents_are_up_to_date(repository: Path) -> None:
    """Run `make config` after a change of config.py."""
    folder = repository / "config"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "default.yaml").read_text(encoding="utf-8") == config.default_yaml()
    assert json.loads((folder / "schema.json").read_text(encoding="utf-8")) == config.json_schema()
    assert readme == config.with_table(readme)


def test_default_yaml_is_what_an_empty_configuration_means() -> None:
    assert config.load(yaml.safe_load(config.default_yaml())) == config.load({})


def test_every_key_is_explained() -> None:
    rows = [line.split("|") for line in config.table().splitlines()[2:]]
    assert len(rows) > 60
    assert [row[1] for row in rows if not row[3].strip()] == []


def test_an_embedding_is_measured_once() -> None:
    assert config.load({"transfer": {"embeddings": ["box_head"]}}).transfer is not None
    assert config.load({}).transfer is None
    with pytest.raises(SegloopError, match=r"transfer\.embeddings names an embedding twice"):
        config.load({"transfer": {"embeddings": ["box_head", "box_head"]}})
    with pytest.raises(SegloopError, match=r"did you mean transfer\.neighbours"):
        config.load({"transfer": {"neighbors": 3}})


# --- several detectors, further embeddings ---


def test_each_of_several_detectors_differs_from_the_sections_in_what_it_says() -> None:
    loaded = config.load(
        {
            "detector": {"architecture": "tiny", "embedding_dim": 64},
            "training": {"steps": 10, "learning_rate": 0.5},
            "detectors": [{"name": "plain"}, {"name": "wide", "embedding_dim": 128, "training": {"steps": 20}}],
        }
    )
    assert [
        (name, one.architecture, one.embedding_dim, one.training.steps, one.training.learning_rate)
        for name, one in loaded.each_detector.items()
    ] == [("plain", "tiny", 64, 10, 0.5), ("wide", "tiny", 128, 20, 0.5)]
    assert loaded.each_detector["plain"].detector == loaded.detector
    assert loaded.of_detector("results/iter_1/model", "wide") == "results/iter_1/detector_wide/model"
    assert config.load(loaded.model_dump(mode="json")) == loaded


def test_a_single_detector_has_no_folder_of_its_own() -> None:
    for loaded in (config.load({}), config.load({"detectors": [{"name": "one", "embedding_dim": 64}]})):
        (name,) = loaded.each_detector
        assert loaded.of_detector("results/iter_1/model", name) == "results/iter_1/model"
    assert config.load({}).each_detector["detector"].detector == config.load({}).detector


CROP = {"model": "net.pt2"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"detectors": [{"name": "a"}, {"name": "a"}]}, "two of the name a"),
        ({"detectors": [{"embedding_dim": 3}]}, r"detectors\.0\.name: field required"),
        ({"detectors": [{"name": "A b"}]}, r"detectors\.0\.name"),
        ({"detectors": [{"name": "a", "embeding_dim": 3}]}, r"did you mean detectors\.0\.embedding_dim\?"),
        ({"detectors": [{"name": "a", "training": {"step": 3}}]}, r"did you mean detectors\.0\.training\.steps\?"),
        ({"detectors": [{"name": "a", "training": {"threads": 7}}]}, "a sets training.threads, which all"),
        ({"detectors": [{"name": "a", "architecture": "tiny", "backend": "detectron2"}]}, "tiny is torchvision's"),
        ({"detectors": ["a"]}, r"detectors\.0: input should be"),
        (
            {
                "detectors": [{"name": "a", "mask_iou_head": True}, {"name": "b"}],
                "clustering": {"embedding": "box_and_mask_iou_head"},
            },
            "which the detector b does not have",
        ),
        (
            {
                "detectors": [{"name": "a", "mask_iou_head": True}, {"name": "b"}],
                "prediction": {"score": "class_times_iou"},
            },
            "class_times_iou needs a predicted IoU",
        ),
        ({"clustering": {"embedding": "crop"}}, r"set prediction\.embeddings: \[crop\]"),
        ({"transfer": {"embeddings": ["mask_weighted"]}}, r"set prediction\.embeddings: \[mask_weighted\]"),
        ({"prediction": {"embeddings": ["crop"]}}, r"set prediction\.crop\.model"),
        ({"prediction": {"embeddings": ["crop", "crop"], "crop": CROP}}, "names an embedding twice"),
    ],
)
def test_detectors_and_embeddings_that_do_not_fit_are_told(values: dict[str, object], message: str) -> None:
    with pytest.raises(SegloopError, match=message):
        config.load(values)
