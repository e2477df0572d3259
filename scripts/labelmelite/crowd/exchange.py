"""Questions of the loop go out as files to people without a network, and their answers come back."""

from pathlib import Path
from typing import Any

from labelmelite.clock import iso
from labelmelite.crowd.answered import read_answers
from labelmelite.crowd.bundles import safe_name
from labelmelite.errors import ApiError
from labelmelite.images import Pixels
from labelmelite.security import new_annotator
from labelmelite.store import Store
from labelmelite.work import Work
from segloop.data import masks
from segloop.errors import SegloopError
from segloop.files import atomic_directory, write_json


def send(work: Work, store: Store, pixels: Pixels, name: str, tasks: int, output: Path) -> list[Path]:
    """Lease tasks to somebody and write each as a folder with `bundle.json` and its images.

    Returns
    -------
    The folders; fewer than `tasks` where no more questions are open.
    """
    made: list[Path] = []
    for place in range(tasks):
        # One annotator a bundle: a task in hand would be given again.
        annotator = _annotator(store, f"{name} {place + 1}")
        task = work.next_task(annotator, "questions", None, [])["task"]
        if task is None:
            break
        folder = output / f"{safe_name(name)}-{task['id']}"
        with atomic_directory(folder) as temporary:
            _write(work, pixels, annotator, task, temporary, iso(store.clock.now()))
        made.append(folder)
    return made


def _annotator(store: Store, name: str) -> str:
    now = store.clock.now()
    identity: str = store.write_now(lambda c: new_annotator(c, "annotator", "file", now, name=name))
    return identity


def _write(work: Work, pixels: Pixels, annotator: str, task: dict[str, Any], folder: Path, time: str) -> None:
    images, annotations = [], []
    (folder / "images").mkdir()
    for number, item in enumerate(task["items"], start=1):
        data, media = work.image(annotator, item["id"], None, pixels)
        file = f"images/{number}.{'png' if media == 'image/png' else 'jpg'}"
        (folder / file).write_bytes(data)
        images.append({"id": number, "file_name": file, "width": item["width"], "height": item["height"]})
        rle = masks.check(item["mask"])
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": task["category"]["id"],
                "segmentation": masks.to_json(rle),
                "area": int(masks.area([rle])[0]),
                "bbox": masks.boxes([rle])[0].tolist(),
                "iscrowd": 0,
                "current_task": {"type": "yesno"},
                "item": item["id"],
            }
        )
    info = {
        "bundle_id": task["id"],
        "annotator": annotator,
        "made": time,
        "expires": task["expires"],
        "text": task["text"],
        "rule": task["rule"],
        "third": task["third"],
    }
    value = {"bundle_info": info, "images": images, "annotations": annotations, "categories": [task["category"]]}
    write_json(folder / "bundle.json", value, sealed=False)


def _seconds(value: Any) -> float:
    """Return the time of an answer; what is no time was refused with the answer."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if sound else 0.0


def receive(work: Work, path: Path) -> tuple[int, list[str]]:
    """Take an answered bundle back; return how many answers were taken, and what became of the others.

    A file may come twice: its answers are counted once.

    Raises
    ------
    SegloopError
        If the file is no answered bundle of this run.
    """
    info, annotations = read_answers(path)
    annotator, task = info.get("annotator"), info.get("bundle_id")
    if not isinstance(annotator, str) or not isinstance(task, str):
        raise SegloopError(f"{path} was not made by `segloop bundle out`, so that it is unknown what it answers.")
    answers = []
    for number, one in enumerate(annotations):
        done = one["completed_task"]
        reply = done.get("reply", "yes" if done.get("accepted") else "no")
        answers.append(
            {
                "client_no": number,
                "item": one.get("item"),
                "reply": reply,
                "reason": done.get("reason"),
                "seconds": done.get("annotationTime", 0.0),
                "default_used": bool(done.get("default_used", False)),
            }
        )
    try:
        acks = work.answer(annotator, task, f"file {task}", answers)
        seconds = sum(_seconds(one["seconds"]) for one in answers)
        result = work.submit(annotator, task, seconds)
    except ApiError as error:
        raise SegloopError(f"{path}: {error.message}") from None
    refused = [
        f"item {answers[place]['item']}: {ack['error']['message']}" for place, ack in enumerate(acks) if "error" in ack
    ]
    if not result["accepted"]:
        refused.append(str(result["message"]))
    return len(acks) - len([one for one in acks if "error" in one]), refused
