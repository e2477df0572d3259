"""Prediction as the pipeline does it beside the plain loop: open, predict, paste, encode, store, one image at a time.

Usage: python benchmarks/predict.py [--model DIR --images DIR] [--cores N] [--rounds N]

Without a model and images it draws scenes of mixed sizes and trains a tiny network on them. All contestants run in
turn, round by round, so that what else the machine does meets all of them. On a GPU, where there is one, it measures
R101-FPN at 800 pixels besides, and the network alone.
"""

import os

# Before torch starts its threads: where cores are shared, threads that spin while they wait would make the plain loop
# with several threads look many times slower than it is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import OUTPUT, heading, publish
from segloop.config import DetectorConfig, PredictionConfig, TrainingConfig
from segloop.data import masks
from segloop.data.demo import CATEGORIES, make_scene
from segloop.data.images import open_image
from segloop.data.labelled import annotation
from segloop.detection import model_files
from segloop.detection.network_segmenter import NetworkSegmenter
from segloop.detection.pipeline import predict_stream
from segloop.detection.segmenter import load_segmenter
from segloop.detection.torchvision_backend import build_model, load_model, to_gpu_batch
from segloop.detection.training import train_detector
from segloop.files import write_json
from segloop.randomness import generator
from segloop.store.predictions import PredictionShard, PredictionWriter

SIZES = ((160, 224), (224, 160), (192, 256), (240, 240))
"""Height and width of the scenes."""
DETECTOR = DetectorConfig(architecture="tiny", embedding_dim=256, min_size=160, max_size=256, detections_per_image=60)
LARGE = DetectorConfig(architecture="r101_fpn", embedding_dim=1024, min_size=800, max_size=1333)
BATCHES = (1, 2, 4, 8, 16)
"""Images of a batch on a GPU."""
Files = list[tuple[int, str]]


def main() -> None:
    """Measure and write docs/benchmarks/predict.{md,json}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model directory (default: a tiny network on drawn scenes)")
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--count", type=int, default=60, help="images of a round on the CPU")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cores that each contestant may use")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the page and the record go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = options.images or draw_scenes(folder, options.count)
        files = list(enumerate(str(path) for path in sorted(scenes.iterdir())[: options.count]))
        model = options.model or train(folder)
        record: dict[str, Any] = {"cpu": on_cpu(model, files, folder, options.cores, options.rounds), "gpu": None}
        if torch.cuda.is_available():
            record["gpu"] = on_gpu(folder, options.rounds)
    publish(
        "predict",
        page(record, "drawn scenes" if options.images is None else "the given images"),
        record,
        options.output,
    )


# --- what is predicted, and with what -----------------------------------------------------------------------------


def draw_scenes(folder: Path, count: int) -> Path:
    """Write scenes of mixed sizes as JPEG, and a training set of twenty others; return the folder of the former."""
    dataset: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": []}
    dataset["categories"] = [{"id": number, "name": shape.name} for number, shape in enumerate(CATEGORIES, start=1)]
    drawn = [("pool", number) for number in range(count)] + [("seed", number) for number in range(20)]
    for part, number in drawn:
        height, width = SIZES[number % len(SIZES)]
        scene = make_scene(generator("bench-predict", part, number), 256)
        path = folder / part / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scene.picture[:height, :width]).save(path, quality=93)
        if part == "seed":
            dataset["images"].append({"id": number, "file_name": str(path), "height": height, "width": width})
            shown = [(category, mask[:height, :width]) for category, mask in scene.objects]
            dataset["annotations"] += [
                annotation(len(dataset["annotations"]) + place, number, category, masks.encode(mask))
                for place, (category, mask) in enumerate((one for one in shown if one[1].sum() > 20), start=1)
            ]
    write_json(folder / "train.json", dataset)
    return folder / "pool"


def train(folder: Path, steps: int = 200) -> Path:
    """Train a tiny network on the drawn scenes: enough to find some things, right or wrong."""
    training = TrainingConfig(
        steps=steps, batch_size=2, optimiser="adamw", learning_rate=0.002, warmup_steps=10, clip_gradient=5.0, threads=1
    )
    train_detector(
        training_set=folder / "train.json",
        previous_model=None,
        output=folder / "model",
        checkpoints=folder / "checkpoints",
        detector=DETECTOR,
        training=training,
        iteration=0,
        seed=0,
        device="cpu",
        max_skipped=0.0,
    )
    return folder / "model"


# --- contestants --------------------------------------------------------------------------------------------------


def plain_loop(segmenter: NetworkSegmenter, files: Files, output: Path, score: float) -> None:
    """Open, predict, paste, encode and store image after image."""
    with writer(segmenter, output) as store:
        for image_id, file in files:
            image = open_image(file)
            (found,) = segmenter.predict([image], score=score)
            store.append(image_id, image.shape[0], image.shape[1], found)


def pipeline(segmenter: NetworkSegmenter, files: Files, output: Path, prediction: PredictionConfig) -> None:
    """Do the same with everything overlapped."""
    with writer(segmenter, output) as store:
        for one in predict_stream(segmenter, files, prediction, prediction.store_score):
            if isinstance(one.outcome, str):
                raise SystemExit(one.outcome)
            store.append(one.image_id, one.height, one.width, one.outcome)


def writer(segmenter: NetworkSegmenter, output: Path) -> PredictionWriter:
    """Return a store to write."""
    return PredictionWriter(
        output,
        iteration=1,
        shard=0,
        model_sha256=segmenter.weights_sha256,
        embedding_dim=segmenter.embedding_dim,
    )


def timed(work: Callable[[], None]) -> dict[str, float]:
    """Return seconds, and CPU seconds of all threads."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


def in_turn(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run contestants in turn; the first round warms up. Every other round runs backwards."""
    result: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            taken = timed(contestants[name])
            if number:
                result[name].append(taken)
    return result


def on_cpu(model: Path, files: Files, folder: Path, cores: int, rounds: int) -> dict[str, Any]:
    """Measure the plain loop with one and all cores, the pipeline with one and all, and the network alone."""
    score = PredictionConfig().store_score
    contestants: dict[str, Callable[[], None]] = {}
    for threads in dict.fromkeys((1, cores)):
        segmenter = load_segmenter(model, device="cpu", threads=threads)
        assert isinstance(segmenter, NetworkSegmenter)
        settings = PredictionConfig(threads=threads, store_score=score)
        plain, piped = folder / f"plain_{threads}.zarr", folder / f"pipeline_{threads}.zarr"
        contestants[f"plain_{threads}"] = lambda s=segmenter, o=plain: plain_loop(s, files, o, score)
        contestants[f"pipeline_{threads}"] = lambda s=segmenter, o=piped, p=settings: pipeline(s, files, o, p)
    prepared = [segmenter.prepare(open_image(file)) for _, file in files]

    def network() -> None:
        with segmenter.running():
            segmenter.detect(prepared, score)

    contestants["network"] = network
    runs = in_turn(contestants, rounds)
    shards = [PredictionShard.open(folder / f"{name}.zarr") for name in ("plain_1", "pipeline_1", f"pipeline_{cores}")]
    return {
        "images": len(files),
        "cores": cores,
        "detections": len(shards[0]),
        "equal": all(same(shards[0], other) for other in shards[1:]),
        "runs": runs,
        "ratio": ratios(runs, ("plain_1", f"plain_{cores}"), f"pipeline_{cores}"),
        "ratio_one_core": ratios(runs, ("plain_1",), "pipeline_1"),
        "ratio_network": ratios(runs, ("network",), "pipeline_1"),
    }


def same(one: PredictionShard, other: PredictionShard) -> bool:
    """Tell whether two stores hold the same bits."""
    columns = ("image_id", "category", "score", "box")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)
    return equal and np.array_equal(one.embeddings(), other.embeddings()) and one.rles() == other.rles()


def ratios(runs: dict[str, list[dict[str, float]]], slow: tuple[str, ...], fast: str) -> list[float]:
    """Return for each round how many times faster `fast` was than the fastest of `slow`."""
    best = [min(runs[name][place]["seconds"] for name in slow) for place in range(len(runs[fast]))]
    return sorted(one / taken["seconds"] for one, taken in zip(best, runs[fast], strict=True))


# --- on a GPU -----------------------------------------------------------------------------------------------------


def on_gpu(folder: Path, rounds: int, images: int = 128) -> dict[str, Any]:
    """Measure R101-FPN at 800 pixels: the plain loop, the pipeline and the network alone, in each precision."""
    model, files = large_model(folder), large_images(folder, images)
    threads, rows = min(16, os.cpu_count() or 1), []
    for precision in ("float32", "float16"):
        segmenter = load_segmenter(model, device="cuda", threads=threads, precision=precision)
        assert isinstance(segmenter, NetworkSegmenter)
        settings: dict[str, Any] = {"threads": threads, "store_score": 0.0, "precision": precision}
        contestants: dict[str, Callable[[], None]] = {
            "plain": lambda s=segmenter: plain_loop(s, files, folder / "gpu_plain.zarr", 0.0),
            "pipeline_auto": lambda s=segmenter, p=settings: pipeline(
                s, files, folder / "gpu.zarr", PredictionConfig(**p, batch_size="auto")
            ),
        }
        for size in BATCHES:
            contestants[f"pipeline_{size}"] = lambda s=segmenter, p=settings, b=size: pipeline(
                s, files, folder / "gpu.zarr", PredictionConfig(**p, batch_size=b)
            )
            contestants[f"network_{size}"] = network_alone(model, files, size, segmenter)
        runs = in_turn(contestants, rounds)
        rows.append({"precision": precision, "images": images, "threads": threads, "runs": runs})
    return {"device": torch.cuda.get_device_name(), "rows": rows}


def large_model(folder: Path) -> Path:
    """Write R101-FPN with random weights, halved so that activations of so many untrained layers stay finite."""
    torch.manual_seed(0)
    network = build_model(LARGE, 100)
    for parameter in network.backbone.body.parameters():
        parameter.data *= 0.5
    model = folder / "large"
    model.mkdir()
    torch.save(network.state_dict(), model / model_files.WEIGHTS)
    description = {
        "schema_version": model_files.SCHEMA_VERSION,
        "backend": "torchvision",
        "detector": LARGE.model_dump(),
        "categories": [{"id": number, "name": str(number)} for number in range(1, 101)],
        "weights_sha256": model_files.weights_sha256(network.state_dict()),
    }
    write_json(model / model_files.DESCRIPTION, description)
    return model


def large_images(folder: Path, count: int) -> Files:
    """Write photographs' sizes of noise on scenes as JPEG; return ids and files."""
    (folder / "large_images").mkdir()
    files = []
    for number in range(count):
        height, width = ((480, 640), (640, 480), (512, 683))[number % 3]
        scene = Image.fromarray(make_scene(generator("bench-predict", "large", number % 8), 256).picture)
        path = folder / "large_images" / f"{number:05}.jpg"
        scene.resize((width, height)).save(path, quality=90)
        files.append((number, str(path)))
    return files


def network_alone(model: Path, files: Files, size: int, segmenter: NetworkSegmenter) -> Callable[[], None]:
    """Return what runs the network to its mask probabilities on one batch that lies on the GPU, for as many images."""
    network = load_model(model)[0].to("cuda").eval()
    pixels = [segmenter.prepare(open_image(files[3 * (place % (len(files) // 3))][1])).pixels for place in range(size)]
    batch = to_gpu_batch(pixels, torch.device("cuda"))
    sizes = [image.shape[:2] for image in pixels]
    half = segmenter.precision != "float32"

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cuda", getattr(torch, segmenter.precision), enabled=half):
            for _ in range(len(files) // size):
                network.detect(batch, sizes, 0.0)
            torch.cuda.synchronize()

    return work


# --- the page -----------------------------------------------------------------------------------------------------


def page(record: dict[str, Any], what: str) -> list[str]:
    """Return the page."""
    cpu = record["cpu"]
    cores, images = cpu["cores"], cpu["images"]
    lines = heading("Prediction", "make bench-predict", "torch", "torchvision")
    lines += [
        f"{images} of {what} ({cpu['detections']} detections), {len(next(iter(cpu['runs'].values())))} rounds in turn, "
        "the median of each. The plain loop opens, predicts, pastes, encodes and stores image after image.",
        "",
        "## CPU, tiny network",
        "",
        "| | threads | images/s | CPU seconds an image |",
        "|---|---|---|---|",
    ]
    names = {"plain": "plain loop", "pipeline": "pipeline"}
    for name, runs in cpu["runs"].items():
        kind, _, threads = name.partition("_")
        lines.append(
            f"| {names.get(kind, 'network alone')} | {threads or 1} | {rate(runs, images)} | {cpu_each(runs, images)} |"
        )
    equal = "equal bit for bit" if cpu["equal"] else "NOT EQUAL"
    lines += [
        "",
        f"With {cores} cores the pipeline is {spread(cpu['ratio'])} times as fast as the faster plain loop of each "
        f"round (one thread or {cores}); brackets hold the least and the most of the rounds. With one core there is "
        f"nothing to overlap but waiting for files: {spread(cpu['ratio_one_core'])} times. One thread of the pipeline "
        f"reaches {spread(cpu['ratio_network'])} times the rate of the network alone, the floor. Stores of the plain "
        f"loop with one thread and of the pipeline with 1 and {cores}: {equal}.",
        "",
        "## GPU",
        "",
    ]
    return lines + (gpu_lines(record["gpu"]) if record["gpu"] else ["Not measured: this machine has no GPU."])


def gpu_lines(gpu: dict[str, Any]) -> list[str]:
    """Return the part of the page about the GPU."""
    lines = [f"{gpu['device']}, R101-FPN with random weights at 800 pixels, 100 detections an image.", ""]
    lines += ["| precision | contestant | images/s |", "|---|---|---|"]
    for row in gpu["rows"]:
        lines += [
            f"| {row['precision']} | {name} | {rate(runs, row['images'])} |" for name, runs in row["runs"].items()
        ]
    return lines


def rate(runs: list[dict[str, float]], images: int) -> str:
    """Return images a second."""
    return f"{images / statistics.median(run['seconds'] for run in runs):.2f}"


def cpu_each(runs: list[dict[str, float]], images: int) -> str:
    """Return CPU seconds an image."""
    return f"{statistics.median(run['cpu_seconds'] for run in runs) / images:.3f}"


def spread(values: list[float]) -> str:
    """Return the median, the least and the largest."""
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


if __name__ == "__main__":
    main()
