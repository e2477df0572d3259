"""The mask IoU head: does the predicted IoU rank masks better than the class score, and what does its embedding add?

Trains the detector of config/demo.yaml and, where there is a folder of nuclei, of config/nuclei.yaml with
`mask_iou_head: true` on their seed sets for several seeds, predicts their validation sets and compares with the truth.
With `--examples detections positives` it does so for both ways in which that head can learn. Finished trainings and
predictions in the run folder are used again. Writes docs/benchmarks/mask_iou.{md,json}.

Usage: python benchmarks/mask_iou.py [--nuclei DIR] [--run runs/mask_iou] [--seeds demo=0] [--steps nuclei=300]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from common import REPOSITORY, heading, publish
from segloop.annotation.oracle import mask_iou
from segloop.clustering.distances import norms, unit_rows
from segloop.clustering.neighbours import nearest
from segloop.clustering.separability import NEIGHBOURS, auc
from segloop.config import Config, LabelledSetConfig, MaskIouExamples, load, read_values
from segloop.data import masks
from segloop.data.demo import generate
from segloop.data.seed import import_labelled_set
from segloop.data.skipped import SkipReport
from segloop.detection.prediction import predict_images
from segloop.detection.segmenter import load_segmenter
from segloop.detection.training import train_detector
from segloop.files import atomic_file, read_json

Array = npt.NDArray[Any]

INDEX_SCORE = 0.5
"""The masks that people would be asked about lie above it (`index.score`)."""
MATCHED = 0.5
"""Predictions with a higher true IoU show an object, and differ in how well they do."""
NAMES = {"score": "class score", "predicted_iou": "predicted IoU", "product": "their product"}


@dataclass(frozen=True)
class Predictions:
    """All predictions of a validation set above `prediction.store_score`; arrays of one length."""

    score: Array
    predicted_iou: Array
    true_iou: Array
    """With the truth of the image and category that fits best, 0 without one."""
    true_iou_any: Array
    """The same with truth of any category: how good the mask is, whatever it is called."""
    box_head: Array
    mask_iou_head: Array
    """Embeddings, one row a prediction."""


def main() -> None:
    """Train, predict, compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nuclei", type=Path, help="folder with splitA.json, val.json, images/")
    parser.add_argument("--sets", nargs="*", help="only these: demo, nuclei")
    parser.add_argument("--run", type=Path, default=REPOSITORY / "runs" / "mask_iou")
    parser.add_argument("--seeds", nargs="*", default=[], help="other seeds than 0,1,2, as in demo=0")
    parser.add_argument("--steps", nargs="*", default=[], help="fewer steps than configured, as in nuclei=300")
    parser.add_argument("--batch", nargs="*", default=[], help="fewer images a step than configured, as in nuclei=4")
    parser.add_argument("--examples", nargs="*", default=["detections"], choices=get_args(MaskIouExamples))
    parser.add_argument("--head", nargs="*", default=[], help="steps of the head alone, as in nuclei=100")
    parser.add_argument("--images", nargs="*", default=[], help="only so many validation images, as in nuclei=60")
    options = parser.parse_args()
    changes = {
        key: dict(one.split("=") for one in getattr(options, key))
        for key in ("steps", "batch", "images", "seeds", "head")
    }
    sets = []
    for name in options.sets or (("demo", "nuclei") if options.nuclei else ("demo",)):
        seeds = [int(seed) for seed in changes["seeds"].get(name, "0,1,2").split(",")]
        for examples in options.examples:
            smaller = {key: changes[key].get(name) for key in ("steps", "batch", "head")}
            config = configuration(name, options.nuclei, smaller, examples)
            sets.append(one_set(name, config, options.run / name, seeds, changes["images"].get(name)))
    publish("mask_iou", page(sets, short_options(options)), {"sets": sets})


def short_options(options: argparse.Namespace) -> str:
    """Return what was made smaller, as it is given to make."""
    changed = ("steps", "batch", "images", "seeds", "head")
    given = [f"--{key} {' '.join(getattr(options, key))}" for key in changed]
    given += [f"--examples {' '.join(options.examples)}"] if options.examples != ["detections"] else []
    words = " ".join(one for one in given if not one.endswith(" "))
    return f" BENCH_ARGS='{words}'" if words else ""


def configuration(name: str, data: Path | None, changes: dict[str, str | None], examples: str) -> Config:
    """Return a configuration of the repository with the mask IoU head."""
    values = read_values(REPOSITORY / "config" / f"{name}.yaml")
    values["detector"] |= {"mask_iou_head": True, "mask_iou_examples": examples}
    keys = {"steps": "steps", "batch": "batch_size", "head": "mask_iou_steps"}
    given = {keys[key]: int(value) for key, value in changes.items() if value is not None}
    values["training"] |= {"threads": 1} | given
    if name == "nuclei":
        values["data_root"] = str(data)
    return load(values)


def one_set(name: str, config: Config, folder: Path, seeds: list[int], images: str | None) -> dict[str, Any]:
    """Train and judge on one data set."""
    training_set, validation_set = import_sets(config, folder)
    truth = first_images(read_json(validation_set), images)
    runs = []
    for seed in seeds:
        examples = config.detector.mask_iou_examples
        training = config.training
        kind = f"{examples}_{training.steps}_{training.mask_iou_steps}_{training.batch_size}"
        model = folder / f"{kind}_{seed}"
        if not model.exists():
            train_detector(
                training_set=training_set,
                previous_model=None,
                output=model,
                checkpoints=model.with_name(f"{model.name}.checkpoints"),
                detector=config.detector,
                training=config.training,
                iteration=0,
                seed=seed,
                device="cpu",
                max_skipped=0.0,
            )
        kept = model.with_name(f"{model.name}_{len(truth['images'])}.npz")
        if not kept.exists():
            with atomic_file(kept) as temporary, temporary.open("wb") as file:
                np.savez(file, **predict(model, truth, config, folder))
        with np.load(kept) as arrays:
            found = Predictions(**arrays)
        runs.append(judge(found, config.annotation.t_iou))
        print(name, seed, runs[-1], flush=True)
    return {
        "name": name,
        "examples": config.detector.mask_iou_examples,
        "steps": config.training.steps,
        "head_steps": config.training.mask_iou_steps,
        "batch_size": config.training.batch_size,
        "configured": "{steps} of {batch_size}".format(
            **read_values(REPOSITORY / "config" / f"{name}.yaml")["training"]
        ),
        "store_score": config.prediction.store_score,
        "t_iou": config.annotation.t_iou,
        "embedding_dim": config.detector.embedding_dim,
        "images": [len(one["images"]) for one in (read_json(training_set), truth)],
        "seeds": seeds,
        "runs": runs,
    }


def import_sets(config: Config, folder: Path) -> tuple[Path, Path]:
    """Return the canonical seed and validation sets, made where they are missing."""
    paths = folder / "train.json", folder / "val.json"
    root = Path(config.data_root)
    if config.data_root == "data/demo":
        root = folder / "data"
        if not root.exists():
            generate(root, seed=config.seed, **config.demo_data.model_dump())
    assert config.validation_set is not None
    for path, labelled in zip(paths, (config.seed_set, config.validation_set), strict=True):
        if not path.exists():
            import_set(labelled, root, path)
    return paths


def import_set(labelled: LabelledSetConfig, root: Path, path: Path) -> None:
    """Read one labelled set into a canonical COCO file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    import_labelled_set(
        config=labelled, data_root=root, output=path, skipped=path.with_suffix(".skipped.json"), max_skipped=0.0
    )


def first_images(truth: dict[str, Any], images: str | None) -> dict[str, Any]:
    """Return a canonical COCO with its first images alone."""
    kept = truth["images"][: int(images) if images else None]
    ids = {one["id"] for one in kept}
    return {**truth, "images": kept, "annotations": [one for one in truth["annotations"] if one["image_id"] in ids]}


def predict(model: Path, truth: dict[str, Any], config: Config, folder: Path) -> dict[str, Array]:
    """Predict a validation set and look each mask up in the truth."""
    segmenter = load_segmenter(model, device="cpu", threads=1)
    known: dict[tuple[int, int], list[masks.Rle]] = {}
    for one in truth["annotations"]:
        known.setdefault((one["image_id"], one["category_id"]), []).append(masks.from_json(one["segmentation"]))
    images = [(one["id"], one["file_name"]) for one in truth["images"]]
    report = SkipReport(folder / "skipped.json", 0.0)
    names = ("score", "predicted_iou", "true_iou", "true_iou_any", "embedding")
    columns: dict[str, list[Array]] = {name: [] for name in names}
    for image, found in predict_images(segmenter, images, config.prediction, config.prediction.store_score, report):
        true_iou = np.zeros((len(found), 2), np.float32)
        for (of_image, category), rles in known.items():
            if of_image == image and len(found):
                best = mask_iou(found.masks, rles, str(image)).max(axis=1)
                true_iou[:, 0] = np.where(found.category == category, best, true_iou[:, 0])
                true_iou[:, 1] = np.maximum(best, true_iou[:, 1])
        assert found.predicted_iou is not None
        for column, values in zip(
            columns, (found.score, found.predicted_iou, *true_iou.T, found.embedding), strict=True
        ):
            columns[column].append(values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    box = segmenter.embedding_parts["box_head"]
    embedding = joined.pop("embedding")
    return {**joined, "box_head": embedding[:, :box], "mask_iou_head": embedding[:, box:]}


def judge(found: Predictions, t_iou: float) -> dict[str, Any]:
    """Return rank correlations with the true IoU, and how well neighbours tell good masks from bad ones."""
    numbers = {"score": found.score, "predicted_iou": found.predicted_iou, "product": found.score * found.predicted_iou}
    good = found.true_iou > t_iou
    certain = found.score > INDEX_SCORE
    record: dict[str, Any] = {
        "predictions": len(good),
        "predictions_in_index": int(certain.sum()),
        "good_share": float(good.mean()),
        "mean_true_iou": float(found.true_iou.mean()),
        "mean_predicted_iou": float(found.predicted_iou.mean()),
        "mean_absolute_error": float(np.abs(found.predicted_iou - found.true_iou).mean()),
    }
    everything = np.ones(len(good), np.bool_)
    for key, truth, rows in (
        ("spearman", found.true_iou, everything),
        ("spearman_any", found.true_iou_any, everything),
        ("spearman_in_index", found.true_iou, certain),
        ("spearman_matched", found.true_iou, found.true_iou > MATCHED),
    ):
        record[key] = {name: float(spearmanr(values[rows], truth[rows]).statistic) for name, values in numbers.items()}
    record["auc"] = {name: auc(values, good) for name, values in numbers.items()}
    parts = (found.box_head, found.mask_iou_head)
    embeddings = {
        "box head": parts[0],
        "mask IoU head": parts[1],
        "joined": np.concatenate(parts, axis=1),
        "joined, each part at length 1": np.concatenate([unit(part) for part in parts], axis=1),
    }
    record["auc_neighbours"] = {name: neighbours_auc(values, good) for name, values in embeddings.items()}
    return record


def unit(embedding: Array) -> Array:
    """Return rows scaled to length 1."""
    rows = embedding.astype(np.float32)
    return unit_rows(rows, norms(rows))


def neighbours_auc(embedding: Array, good: Array) -> float | None:
    """Return the AUC of the share of good masks among the 30 nearest others, by cosine."""
    rows = unit(embedding)
    own = np.arange(len(rows))
    shares = []
    for some in np.array_split(own, -(-len(own) // 1024)):
        found, _ = nearest(rows[some], iter([(0, rows)]), min(NEIGHBOURS, len(rows) - 1), some)
        shares.append(good[found].mean(axis=1))
    return auc(np.concatenate(shares), good)


def page(sets: list[dict[str, Any]], smaller: str) -> list[str]:
    """Return docs/benchmarks/mask_iou.md."""
    lines = heading("The mask IoU head", f"make bench-mask-iou NUCLEI=DIR{smaller}", "torch", "torchvision", "scipy")
    lines += [
        "The head of Mask Scoring R-CNN (Huang et al., CVPR 2019) beside the class score, on validation images.",
        "The true IoU of a prediction is that with the best truth of its image and category, 0 without one;",
        "`of any category` it is that of the mask alone, whatever it is called. The head learns from the network's own",
        "detections (`detector.mask_iou_examples`), or as in the paper from the proposals that match an object.",
        "",
    ]
    for one in sets:
        lines += set_lines(one)
    return lines


def set_lines(one: dict[str, Any]) -> list[str]:
    """Return the part of the page about one data set."""
    runs = one["runs"]
    trained = f"{one['images'][0]} images, {one['steps']} steps of {one['batch_size']}"
    trained += f" and {one['head_steps']} of the head alone" if one["head_steps"] else ""
    masses = f"{mean([run['predictions'] for run in runs]):,.0f} predictions"
    errors = [run["mean_absolute_error"] for run in runs]
    lines = [
        f"## {one['name']}, learned from {one['examples']}",
        "",
        f"`config/{one['name']}.yaml` with the head, trained on {trained} (the configuration says "
        f"{one['configured']}); {len(runs)} seeds of the training, mean and range. "
        f"{masses} above {one['store_score']} on {one['images'][1]} images, "
        f"{mean([run['predictions_in_index'] for run in runs]):,.0f} above {INDEX_SCORE}; "
        f"{100 * mean([run['good_share'] for run in runs]):.0f} % of all have an IoU above {one['t_iou']}. "
        f"Mean true IoU {spread([run['mean_true_iou'] for run in runs])}, "
        f"mean predicted IoU {spread([run['mean_predicted_iou'] for run in runs])}, "
        f"mean absolute error {spread(errors)}.",
        "",
        f"| what ranks | Spearman with the true IoU | of any category | scores above {INDEX_SCORE} "
        f"| true IoU above {MATCHED} | AUC of good against bad |",
        "|---|---|---|---|---|---|",
    ]
    columns = ("spearman", "spearman_any", "spearman_in_index", "spearman_matched", "auc")
    for key, name in NAMES.items():
        cells = [spread([run[column][key] for run in runs]) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for column, words in (("spearman", "the true IoU"), ("spearman_any", "that of any category")):
        gain = [run[column]["predicted_iou"] - run[column]["score"] for run in runs]
        lines += ["", f"Spearman of predicted IoU minus that of the class score, with {words}: {spread(gain)}."]
    lines += [
        "",
        f"| embedding | width | AUC of the share of good masks among {NEIGHBOURS} neighbours |",
        "|---|---|---|",
    ]
    for name in runs[0]["auc_neighbours"]:
        width = one["embedding_dim"] * (2 if name.startswith("joined") else 1)
        lines.append(f"| {name} | {width} | {spread([run['auc_neighbours'][name] for run in runs])} |")
    return [*lines, ""]


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return float(np.mean(values))


def spread(values: Sequence[float]) -> str:
    """Return mean and range in words."""
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
