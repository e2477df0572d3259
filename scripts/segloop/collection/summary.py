"""What an iteration and a run came to."""

import platform
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from segloop.annotation.answers import COUNTED_PURPOSES, NO_REASONS, NOT_PART, OTHER, REPLIES, read_answers
from segloop.annotation.certificates import read_certificates
from segloop.annotation.oracle import Truth, good, mask_iou, match_one_to_one, read_truth_match
from segloop.annotation.verdicts import ACCEPTED, ANSWERED, DUPLICATE, read_verdicts
from segloop.collection.stopping import stop_reason
from segloop.config import AnnotationConfig, LoopConfig
from segloop.data import masks
from segloop.errors import SegloopError
from segloop.files import read_document, read_json, write_json
from segloop.store.index import read_index_attributes, read_index_columns

SCHEMA_VERSION: Final = 1

LIBRARIES: Final = (
    "dask",
    "distributed",
    "faiss-cpu",
    "fastcluster",
    "numpy",
    "pillow",
    "pyarrow",
    "pycocotools",
    "scipy",
    "segloop",
    "snakemake",
    "torch",
    "torchvision",
    "zarr",
)


def summarise_iteration(
    *,
    iteration: int,
    evaluations: Mapping[str, Path],
    output: Path,
    collected: list[Path],
    ledger: Path,
    annotation: AnnotationConfig,
    index: Path | None = None,
    answers: Path | None = None,
    verdicts: Path | None = None,
    certificates: Path | None = None,
    quality: Path | None = None,
    truth_match: Path | None = None,
    truth: Path | None = None,
    control_evaluation: Path | None = None,
) -> None:
    """Write the summary of an iteration: one row of the table. What is not known is null.

    Parameters
    ----------
    evaluations
        evaluation.json of each model that this iteration trained, by the name of the detector, in the order of the
        configuration. The average precision of the iteration is that of the first. Where there are several, the summary
        has also `detectors`: of each its `ap` and `ap50`, how many predictions it has in the index, how many of it were
        left out because a better one of another detector shows the same, and how many masks of it were collected.
    collected
        collected.json of the iterations 1..i; empty in iteration 0.
    ledger
        ledger.json of this iteration.
    index, answers, verdicts, certificates
        Of this iteration; None in iteration 0, in which nothing is asked.
    quality
        quality.json of this iteration; None where no mask is redrawn.
    truth_match, truth
        None where the pool's truth is not known.
    control_evaluation
        evaluation.json of the control of this iteration, where it is known by now.

    Raises
    ------
    SegloopError
        If a file is missing or damaged.
    """
    measured = read_document(next(iter(evaluations.values())))
    summary: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "iteration": iteration}
    summary |= dict.fromkeys(
        ("predictions", "duplicates", "questions", "collected", "collected_total", "masks_per_question")
    )
    summary |= dict.fromkeys(("precision", "recall", "truth_recall", "reasons", "certificate", "certified", "quality"))
    if index is not None and verdicts is not None and answers is not None:
        summary |= _counts(index, answers, collected)
        summary |= against_predictions(verdicts, truth_match, annotation)
        summary["truth_recall"] = None if truth is None else truth_recall(collected, truth, annotation.t_iou)
        summary["reasons"] = _reasons(answers)
        if certificates is not None:
            summary |= {"certificate": _claims(certificates) or None, "certified": certified(verdicts, certificates)}
        summary["quality"] = None if quality is None else _quality(quality)
    summary |= {name: measured[name] for name in ("ap", "ap50", "ap_per_category")}
    if len(evaluations) > 1:
        summary["detectors"] = _of_detectors(evaluations, index, collected)
    summary["control_ap"] = None if control_evaluation is None else read_document(control_evaluation)["ap"]
    summary |= _cost(ledger)
    write_json(output, summary)


def _of_detectors(
    evaluations: Mapping[str, Path], index: Path | None, collected: list[Path]
) -> dict[str, dict[str, Any]]:
    """Return what each of several detectors came to, by name; what is not known is null."""
    known = {} if index is None else {one["name"]: one for one in read_index_attributes(index)["detectors"]}
    masks_of = Counter(
        annotation["provenance"]["detector"] for path in collected[-1:] for annotation in read_json(path)["annotations"]
    )
    rows = {}
    for name, evaluation in evaluations.items():
        measured = read_document(evaluation)
        rows[name] = {
            "ap": measured["ap"],
            "ap50": measured["ap50"],
            "predictions": known[name]["predictions"] if known else None,
            "duplicates_left_out": known[name]["duplicates_left_out"] if known else None,
            "collected": masks_of[name] if known else None,
        }
    return rows


def _counts(index: Path, answers: Path, collected: list[Path]) -> dict[str, Any]:
    (duplicate_of,) = read_index_columns(index, "duplicate_of")
    questions = len(read_answers(answers))
    each = [len(read_json(path)["annotations"]) for path in collected]
    return {
        "predictions": len(duplicate_of),
        "duplicates": int(np.count_nonzero(duplicate_of)),
        "questions": questions,
        "collected": each[-1],
        "collected_total": sum(each),
        "masks_per_question": each[-1] / questions if questions else None,
    }


def against_predictions(verdicts: Path, truth_match: Path | None, annotation: AnnotationConfig) -> dict[str, Any]:
    """Return precision and recall of the accepted masks among the predictions that are no duplicates.

    Precision is |A and good| / |A|, recall |A and good| / |good|: of what was predicted, not of all truth.
    """
    if truth_match is None:
        return {}
    judged, match = read_verdicts(verdicts), read_truth_match(truth_match)
    if not np.array_equal(judged.prediction, match.prediction):
        raise SegloopError(f"{verdicts} and {truth_match} hold different predictions. Run match_truth again.")
    new = judged.reason != DUPLICATE
    is_good = good(match, annotation.t_iou, annotation.matching) & new
    accepted = (judged.verdict == ACCEPTED) & new
    both = int(np.count_nonzero(is_good & accepted))
    return {
        "precision": both / int(accepted.sum()) if accepted.any() else None,
        "recall": both / int(is_good.sum()) if is_good.any() else None,
    }


def truth_recall(collected: list[Path], truth: Path, t_iou: float) -> float | None:
    """Return the share of the pool's truth that collected masks match one to one; None if there is no truth.

    Masks of all iterations are matched together, in score order within image and category (`match_one_to_one`); crowds
    count in neither part. The thesis reports 28 % (section 4).
    """
    wanted = Truth.read(truth)
    found: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for path in collected:
        for annotation in read_json(path)["annotations"]:
            found[annotation["image_id"], annotation["category_id"]].append(annotation)
    matched = 0
    for (image, category), annotations in found.items():
        ids, truth_rles = wanted.of(image, category)
        if len(ids):
            rles = [masks.from_json(annotation["segmentation"]) for annotation in annotations]
            iou = mask_iou(rles, truth_rles, f"image {image} in the collected masks and {truth}")
            score = np.array([annotation["score"] for annotation in annotations])
            matched += int(np.count_nonzero(match_one_to_one(iou, score, t_iou) >= 0))
    return matched / wanted.count if wanted.count else None


def _cost(ledger: Path) -> dict[str, Any]:
    """Return what an iteration cost and what its masks are worth; people's part is unknown where nobody was asked."""
    content = read_document(ledger)
    people, machine = content["people"], content["machine"]
    asked = content["iteration"] > 0
    return {
        "dollars": people["dollars"] if asked else None,
        "seconds": people["seconds"] if asked else None,
        "gpu_hours": machine["gpu_hours"],
        "cpu_hours": machine["cpu_hours"],
        "machine_dollars": machine["dollars"],
        "value": content["value"],
    }


def _reasons(answers: Path) -> dict[str, int]:
    """Return how often each reason was given for not saying yes, those that were given alone."""
    table = read_answers(answers)
    counted = zip(*(table.column(name).to_pylist() for name in ("purpose", "reply", "reason")), strict=True)
    found = Counter(
        reason or NOT_PART
        for purpose, reply, reason in counted
        if purpose in COUNTED_PURPOSES and (reason is not None or reply == REPLIES[OTHER])
    )
    return {word: found[word] for word in (*NO_REASONS, NOT_PART) if found[word]}


def _claims(certificates: Path) -> list[dict[str, Any]]:
    """Return what the audits of an iteration show, of each audited set."""
    names = ("certificate_id", "size", "target", "lower", "false_yes", "claimed", "passed")
    return [{name: getattr(one, name) for name in names} for one in read_certificates(certificates)]


def certified(verdicts: Path, certificates: Path) -> float | None:
    """Return the precision that is claimed of all accepted masks, None if nothing is claimed of some of them.

    The claims of an iteration hold together, so that their mean, weighted by the masks that each is about, is a claim
    about all of these. Masks that were answered with yes by themselves only raise it. An audit that was failed leaves
    its bound, where its masks are kept nevertheless.
    """
    judged = read_verdicts(verdicts)
    claimed = {one.certificate_id: one.claimed for one in read_certificates(certificates)}
    accepted = (judged.verdict == ACCEPTED) & (judged.reason != DUPLICATE)
    place = judged.certificate[accepted]
    if not (place >= 0).any() or np.any((place < 0) & (judged.reason[accepted] != ANSWERED)):
        return None
    sizes = np.bincount(place[place >= 0], minlength=len(judged.certificate_ids))
    bounds = np.array([claimed[name] for name in judged.certificate_ids])
    return float(sizes @ bounds / sizes.sum())


def _quality(quality: Path) -> dict[str, Any]:
    """Return how well a sample of the accepted masks is drawn."""
    names = ("sample", "redrawn", "mean_iou", "interval", "matched", "sq", "sq_interval")
    content = read_document(quality)
    return {name: content[name] for name in names}


def summarise_run(
    *,
    summaries: list[Path],
    control_evaluations: list[Path],
    upper_bound_evaluation: Path | None,
    loop: LoopConfig,
    output: Path,
) -> None:
    """Write the summary of a run.

    Parameters
    ----------
    summaries
        Of the iterations 0..last, in order.
    control_evaluations
        Of the iterations 1..last, or none. Of a run that a rule stopped, there may be fewer summaries than these.
    output
        {"schema_version", "iterations": [a summary each], "stop_reason", "planned_iterations", "control": {"1": {"ap",
        "ap50"}, ...} or null, "upper_bound": {"ap", "ap50"} or null, "versions": {library: version}}.

    Raises
    ------
    SegloopError
        If a file is missing or damaged.
    """
    rows = [read_document(path) for path in summaries]
    control = {str(number): _ap(path) for number, path in enumerate(control_evaluations, start=1)}
    for row in rows:
        if str(row["iteration"]) in control:
            row["control_ap"] = control[str(row["iteration"])]["ap"]
    write_json(
        output,
        {
            "schema_version": SCHEMA_VERSION,
            "iterations": rows,
            "stop_reason": stop_reason(rows, loop),
            "planned_iterations": loop.iterations,
            "control": control or None,
            "upper_bound": None if upper_bound_evaluation is None else _ap(upper_bound_evaluation),
            "versions": versions(),
        },
    )


def _ap(evaluation: Path) -> dict[str, Any]:
    measured = read_document(evaluation)
    return {"ap": measured["ap"], "ap50": measured["ap50"]}


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the libraries that results depend on; None for those not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
