"""Masks that people have mended: answers that say what the mask ought to be.

The folder of an iteration holds `edits.jsonl` beside `answers.jsonl`. An edited mask counts as confirmed, and takes the
place of the predicted one, which counts as known to be bad.
"""

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from segloop.annotation.people import Record, check_spent, read_line, read_log
from segloop.annotation.verdicts import ACCEPTED, DUPLICATE, EDITED, Verdicts
from segloop.data import masks
from segloop.data.masks import MaskError, Rle
from segloop.errors import SegloopError
from segloop.files import other_version, read_json, write_json
from segloop.store.index import Index

logger = logging.getLogger("segloop.annotation")

EDITED_SCHEMA: Final = 1
_REQUIRED: Final = ("edit_id", "prediction", "mask_key", "annotator", "segmentation")


def read_edits(path: Path) -> list[Record]:
    """Read what people have mended, one JSON object a line; the file is left as it is.

    The keys are `edit_id` (any text that is unique), `prediction`, `mask_key` (64 hexadecimal digits, of the mask as it
    was predicted), `annotator`, `segmentation` (COCO RLE of the image's size), and, if known, `seconds`, `price`,
    `time`. A last line that was cut off is left aside; a record that stands there twice counts once.

    Raises
    ------
    SegloopError
        If a line is no valid record, or two have one id; the message names file and line.
    """
    return read_log(path, _edit, "edit_id")


def _edit(line: bytes, where: str) -> Record:
    given = read_line(line, where, _REQUIRED)
    record: Record = {name: given.get(name) for name in (*_REQUIRED, "seconds", "price", "time")}
    try:
        record["edit_id"], record["annotator"] = str(given["edit_id"]), str(given["annotator"])
        # Half a character cannot be written again.
        f"{record['edit_id']}{record['annotator']}".encode()
        record["prediction"] = int(given["prediction"])
        record["mask_key"] = bytes.fromhex(given["mask_key"])
        if len(record["mask_key"]) != 32:
            raise ValueError("its mask_key has other than 64 digits")
        check_spent(record, where)
        record["segmentation"] = masks.check(record["segmentation"])
        if not masks.area([record["segmentation"]])[0]:
            raise ValueError("its mask is empty")
    except (MaskError, ValueError, TypeError, OverflowError) as error:
        raise SegloopError(f"{where} is no edit ({error}). Mend or remove that line.") from None
    return record


def judge_edited(verdicts: Verdicts, index: Index, records: list[Record]) -> tuple[Verdicts, list[Record]]:
    """Accept what was mended.

    The certificate of a set that holds an edited mask stays with it: a confirmed mask in the place of another one never
    lowers the share of good ones.

    Parameters
    ----------
    verdicts, index
        Of one iteration, in the same order.

    Returns
    -------
    The verdicts with the reason `edited`, and the edit of each of these masks (the last one) in the order of the
    index, with its `prediction`. Edits of masks that the index lacks, or that repeat an earlier one, are reported.
    """
    heads = np.ascontiguousarray(index.mask_key[:, :8]).view(np.uint64)[:, 0]
    latest: dict[int, Record] = {}
    stale = 0
    for record in records:
        row = _row_of(record, index, heads)
        if row < 0 or verdicts.reason[row] == DUPLICATE:
            stale += 1
        else:
            latest[row] = record | {"prediction": int(index.prediction[row])}
    if stale:
        logger.warning("%d of %d edits are stale: no mask of this iteration has their key", stale, len(records))
    rows = np.array(sorted(latest), np.int64)
    verdict, reason = verdicts.verdict.copy(), verdicts.reason.copy()
    verdict[rows], reason[rows] = ACCEPTED, EDITED
    judged = Verdicts(
        verdicts.prediction, verdict, reason, verdicts.node, verdicts.certificate, verdicts.certificate_ids
    )
    return judged, [latest[row] for row in rows.tolist()]


def _row_of(record: Record, index: Index, heads: npt.NDArray[np.uint64]) -> int:
    candidates = np.flatnonzero(heads == np.frombuffer(record["mask_key"], np.uint64, 1)[0]).tolist()
    same = [row for row in candidates if index.mask_key[row].tobytes() == record["mask_key"]]
    shown = [row for row in same if int(index.prediction[row]) == record["prediction"]]
    return int((shown or same or [-1])[0])


def write_edited(path: Path, kept: list[Record], spent: list[Record], hourly_wage: float) -> None:
    """Write edited.json: {"schema", "masks": [an edit each], "work": [what each edit cost]}.

    Parameters
    ----------
    kept
        Edits that count, see `judge_edited`.
    spent
        All edits: those that were replaced by a later one are paid, too.
    hourly_wage
        Dollars an hour, for edits that do not say their price.
    """
    write_json(
        path,
        {
            "schema": EDITED_SCHEMA,
            "masks": [_to_json(one) for one in kept],
            "work": [
                {
                    "prediction": str(one["prediction"]),
                    "annotator": one["annotator"],
                    "seconds": one["seconds"],
                    "price": _price(one, hourly_wage),
                }
                for one in spent
            ],
        },
    )


def _price(record: Record, hourly_wage: float) -> float | None:
    if record["price"] is None and record["seconds"] is not None:
        return float(record["seconds"]) / 3600 * hourly_wage
    return None if record["price"] is None else float(record["price"])


def _to_json(record: Record) -> dict[str, Any]:
    return record | {
        # As text, because it exceeds the integers of JSON readers.
        "prediction": str(record["prediction"]),
        "mask_key": record["mask_key"].hex(),
        "segmentation": masks.to_json(record["segmentation"]),
    }


def read_edited(path: Path | None) -> dict[int, dict[str, Any]]:
    """Return the edits that count by their prediction, `segmentation` as compressed RLE; none without a file.

    Raises
    ------
    SegloopError
        If the file is damaged.
    """
    found = {}
    for one in _content(path)["masks"]:
        found[int(one["prediction"])] = one | {"segmentation": masks.from_json(one["segmentation"])}
    return found


def edit_work(path: Path | None) -> list[dict[str, Any]]:
    """Return what was spent on edits, a record each; nothing without a file."""
    return list(_content(path)["work"])


def _content(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"masks": [], "work": []}
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != EDITED_SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise SegloopError(other_version(path, found, EDITED_SCHEMA))
    return content


def edited_rles(rles: list[Rle], predictions: list[int], edited: dict[int, dict[str, Any]], where: str) -> list[Rle]:
    """Return masks with those that were edited in the place of the predicted ones.

    Raises
    ------
    SegloopError
        If one was drawn on an image of another size; `where` names the store.
    """
    changed = []
    for rle, prediction in zip(rles, predictions, strict=True):
        edit = edited.get(prediction)
        if edit is not None and list(edit["segmentation"]["size"]) != list(rle["size"]):
            raise SegloopError(
                f"edit {edit['edit_id']} has size {edit['segmentation']['size']} (height, width), its mask in {where} "
                f"{rle['size']}. Draw it again on the image itself."
            )
        changed.append(rle if edit is None else edit["segmentation"])
    return changed
