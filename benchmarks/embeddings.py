"""Which embedding tells good masks from bad ones? The heads' embeddings beside `mask_weighted` and `crop`, on nuclei.

Trains the detector of config/nuclei.yaml with a mask IoU head on its seed set for several seeds, predicts validation
images with all embeddings, and measures for each how well the nearest neighbours of a mask tell whether it is good. The
network of the crops is the detector's own backbone, averaged over the crop. Finished trainings and predictions in the
run folder are used again. Writes docs/benchmarks/embeddings.{md,json}.

Usage: python benchmarks/embeddings.py --nuclei DIR [--run runs/embeddings] [--seeds 0,1] [--steps N] [--images N]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import REPOSITORY, heading, publish
from mask_iou import configuration, first_images, import_sets, neighbours_auc, spread
from segloop.annotation.oracle import mask_iou
from segloop.clustering.separability import NEIGHBOURS, auc
from segloop.config import Config, CropConfig
from segloop.data import masks
from segloop.data.skipped import SkipReport
from segloop.detection import torchvision_backend
from segloop.detection.prediction import predict_images
from segloop.detection.segmenter import load_segmenter
from segloop.detection.training import train_detector
from segloop.files import atomic_file, read_json

CROP_SIZE = 64
EASIER = 0.5
"""A lower limit of a good mask, which leaves more of them."""
EMBEDDINGS = {
    "box head": ("box_head",),
    "box head and mask IoU head": ("box_head", "mask_iou_head"),
    "`mask_weighted`": ("mask_weighted",),
    "`crop`": ("crop",),
}
"""Of which stored parts each is made."""


class Averaged(nn.Module):
    """A detector's backbone as a network of crops: the mean of each level of its pyramid over the crop."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Map float[n, 3, S, S] to float[n, levels * channels]."""
        return torch.cat([level.mean(dim=(2, 3)) for level in self.backbone(x).values()], dim=1)


def main() -> None:
    """Train, predict, compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nuclei", type=Path, required=True, help="folder with splitA.json, val.json, images/")
    parser.add_argument("--run", type=Path, default=REPOSITORY / "runs" / "embeddings")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", help="fewer steps than configured")
    parser.add_argument("--batch", help="fewer images a step than configured")
    parser.add_argument("--head", help="steps of the mask IoU head alone")
    parser.add_argument("--images", help="only so many validation images")
    parser.add_argument("--width", type=int, default=1024, help="of the box head, and of the mask IoU head")
    options = parser.parse_args()
    smaller = {key: getattr(options, key) for key in ("steps", "batch", "head")}
    config = configuration("nuclei", options.nuclei, smaller, "detections")
    detector = config.detector.model_copy(update={"embedding_dim": options.width})
    config = config.model_copy(update={"detector": detector})
    training_set, validation_set = import_sets(config, options.run)
    truth = first_images(read_json(validation_set), options.images)
    runs = []
    for seed in (int(one) for one in options.seeds.split(",")):
        columns = found_by(config, options.run, training_set, truth, seed)
        runs.append(judge(columns, config.annotation.t_iou))
        print(seed, runs[-1], flush=True)
    record = {
        "steps": config.training.steps,
        "batch_size": config.training.batch_size,
        "head_steps": config.training.mask_iou_steps,
        "images": [len(read_json(training_set)["images"]), len(truth["images"])],
        "seeds": options.seeds,
        "t_iou": config.annotation.t_iou,
        "store_score": config.prediction.store_score,
        "runs": runs,
    }
    keys = ("seeds", "steps", "batch", "head", "images")
    given = [f"--{key} {getattr(options, key)}" for key in keys if getattr(options, key)]
    publish("embeddings", page(record, " ".join(given)), record)


def found_by(config: Config, folder: Path, training_set: Path, truth: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train with a seed and predict; return score, true IoU and the parts of the embeddings by name."""
    training = config.training
    kind = f"{training.steps}_{training.mask_iou_steps}_{training.batch_size}_{config.detector.embedding_dim}"
    model = folder / f"model_{kind}_{seed}"
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
        return dict(arrays)


def predict(model: Path, truth: dict[str, Any], config: Config, folder: Path) -> dict[str, Any]:
    """Predict validation images and look each mask up in the truth."""
    network, _, _ = torchvision_backend.load_model(model)
    file = folder / f"{model.name}.crops.pt2"
    example = torch.zeros((2, 3, CROP_SIZE, CROP_SIZE))
    exported = torch.export.export(
        Averaged(network.backbone).eval(), (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    )
    torch.export.save(exported, file)
    crop = CropConfig(model=str(file), size=CROP_SIZE)
    segmenter = load_segmenter(model, device="cpu", threads=1, embeddings=["mask_weighted", "crop"], crop=crop)
    known: dict[int, list[masks.Rle]] = {}
    for one in truth["annotations"]:
        known.setdefault(one["image_id"], []).append(masks.from_json(one["segmentation"]))
    images = [(one["id"], one["file_name"]) for one in truth["images"]]
    report = SkipReport(folder / "skipped.json", 0.0)
    rows = []
    for image, found in predict_images(segmenter, images, config.prediction, config.prediction.store_score, report):
        true_iou = np.zeros(len(found), np.float32)
        if len(found) and image in known:
            # One category: nuclei.
            true_iou = mask_iou(found.masks, known[image], str(image)).max(axis=1)
        rows.append((found.score, true_iou, found.embedding))
    score, true_iou, embedding = (np.concatenate(column) for column in zip(*rows, strict=True))
    ends = np.cumsum(list(segmenter.embedding_parts.values()))[:-1]
    parts = dict(zip(segmenter.embedding_parts, np.split(embedding, ends, axis=1), strict=True))
    return {"score": score, "true_iou": true_iou, **parts}


def judge(columns: dict[str, Any], t_iou: float) -> dict[str, Any]:
    """Return how well the score and the neighbours by each embedding tell good masks from bad ones, for two limits."""
    embeddings = {name: np.concatenate([columns[part] for part in parts], axis=1) for name, parts in EMBEDDINGS.items()}
    at = {}
    for limit in (t_iou, EASIER):
        good = columns["true_iou"] > limit
        at[str(limit)] = {
            "good_share": float(good.mean()),
            "score": auc(columns["score"], good),
            "neighbours": {name: neighbours_auc(values, good) for name, values in embeddings.items()},
        }
    return {
        "predictions": len(columns["score"]),
        "at": at,
        "width": {name: values.shape[1] for name, values in embeddings.items()},
    }


def page(record: dict[str, Any], options: str) -> list[str]:
    """Return docs/benchmarks/embeddings.md."""
    runs, limits = record["runs"], [str(record["t_iou"]), str(EASIER)]
    shares = [
        f"{100 * np.mean([run['at'][limit]['good_share'] for run in runs]):.0f} % of them with an IoU above {limit}"
        for limit in limits
    ]
    command = f"make bench-embeddings NUCLEI=DIR BENCH_ARGS='{options}'"
    lines = heading("Embeddings: which tell good masks from bad ones", command, "torch", "torchvision")
    lines += [
        f"`config/nuclei.yaml` with a mask IoU head and wider embeddings, trained on {record['images'][0]} images for "
        f"{record['steps']} steps of {record['batch_size']} and {record['head_steps']} of that head alone; "
        f"seeds {record['seeds']}, mean and range. "
        f"{np.mean([run['predictions'] for run in runs]):,.0f} predictions above {record['store_score']} on "
        f"{record['images'][1]} validation images, {' and '.join(shares)}. "
        f"The network of `crop` is the detector's own backbone, averaged over crops of {CROP_SIZE} pixels.",
        "",
        f"AUC of good against bad masks, by the share of good ones among the {NEIGHBOURS} nearest neighbours:",
        "",
        f"| what ranks | width | {' | '.join(f'good above {limit}' for limit in limits)} |",
        "|---|---|---|---|",
    ]
    for name in EMBEDDINGS:
        cells = [spread([run["at"][limit]["neighbours"][name] for run in runs]) for limit in limits]
        lines.append(f"| {name} | {runs[0]['width'][name]} | {' | '.join(cells)} |")
    cells = [spread([run["at"][limit]["score"] for run in runs]) for limit in limits]
    lines += [f"| the class score alone | | {' | '.join(cells)} |", ""]
    return lines


if __name__ == "__main__":
    main()
