"""An answered bundle: the file that comes back, in the format of the thesis's author."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmelite.sources.coco import whole
from segloop.data import masks
from segloop.data.masks import MaskError
from segloop.errors import SegloopError
from segloop.files import read_json, write_json

REASONS = ("reason", "default_used")


@dataclass(frozen=True)
class Answered:
    """The last answer to an item, and the seconds that it took in all."""

    payload: dict[str, Any]
    seconds: float


def answered_bundle(
    value: dict[str, Any], answers: dict[int, Answered], name: str, annotator: str, time: str
) -> dict[str, Any]:
    """Return a bundle with its answers.

    Parameters
    ----------
    value
        The bundle as it was read.
    answers
        By annotation id.
    name, annotator, time
        The bundle, the id of who answered it, and when it was submitted.
    """
    info = value.get("bundle_info")
    kept = info if isinstance(info, dict) else {}
    made = {
        **value,
        "bundle_info": {**kept, "bundle_id": name, "submit_date": time, "worker_id": annotator},
        "annotations": [_annotation(one, answers) for one in value["annotations"]],
    }
    tests = [one for one in made["annotations"] if _hidden(one) is not None]
    if tests:
        right = sum(_passed(one) for one in tests)
        made["bundle_info"]["hidden_tests"] = {"asked": len(tests), "right": right}
    return made


def _annotation(one: Any, answers: dict[int, Answered]) -> Any:
    number = whole(one.get("id")) if isinstance(one, dict) else None
    if number is None or number not in answers:
        return one
    answer = answers[number]
    made = {key: value for key, value in one.items() if key != "current_task"}
    task: dict[str, Any] = {"annotationTime": round(answer.seconds, 3)}
    if "reply" in answer.payload:
        task |= {"type": "yesno", "accepted": answer.payload["reply"] == "yes", "reply": answer.payload["reply"]}
        task |= {name: answer.payload[name] for name in REASONS if answer.payload.get(name)}
    else:
        after = answer.payload["after"]
        task |= {"type": "edit", "accepted": after is not None, "before": answer.payload["before"]}
        if after is not None:
            rle = masks.check(after)
            made |= {
                "segmentation": after,
                "area": int(masks.area([rle])[0]),
                "bbox": masks.boxes([rle])[0].tolist(),
            }
    return made | {"completed_task": task}


def _hidden(one: Any) -> dict[str, Any] | None:
    test = one.get("hidden_test") if isinstance(one, dict) else None
    return test if isinstance(test, dict) else None


def _passed(one: dict[str, Any]) -> bool:
    """Return whether a hidden test was passed: thesis section 4.4, good above an IoU of 0.8, bad below 0.5."""
    test, task = _hidden(one), one.get("completed_task")
    if test is None or not isinstance(task, dict):
        return False
    if task.get("type") == "edit":
        try:
            truth, drawn = masks.check(test.get("segmentation")), masks.check(one.get("segmentation"))
        except MaskError:
            return False
        return truth["size"] == drawn["size"] and bool(masks.iou([drawn], [truth])[0, 0] > 0.8)
    iou = test.get("iou")
    return isinstance(iou, int | float) and bool(task.get("accepted")) == (iou > 0.8)


def written(folder: Path, value: dict[str, Any]) -> Path:
    """Write an answered bundle under its id, its annotator and its date, without the colons of the author's names."""
    info = value["bundle_info"]
    date = str(info["submit_date"]).replace(":", "-")
    path = folder / f"{info['bundle_id']}_{info['worker_id']}_{date}.json"
    write_json(path, value, sealed=False)
    return path


def read_answers(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what an answered bundle says of itself, and its annotations that have an answer.

    Raises
    ------
    SegloopError
        If the file is no answered bundle.
    """
    value = read_json(path)
    info = value.get("bundle_info") if isinstance(value, dict) else None
    annotations = value.get("annotations") if isinstance(value, dict) else None
    if not isinstance(info, dict) or not isinstance(annotations, list):
        raise SegloopError(f"{path} is no answered bundle: it lacks bundle_info or annotations.")
    answered = [one for one in annotations if isinstance(one, dict) and isinstance(one.get("completed_task"), dict)]
    if not answered:
        raise SegloopError(f"{path} holds no answers. Submit the bundle first.")
    return info, answered
