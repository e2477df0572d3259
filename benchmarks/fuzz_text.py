"""Cases of `fuzz.py`: configurations, lines of answers, and files that come back from people, with pieces changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from fuzz_formats import Case, damaged, odd_value
from labelmelite.crowd import answered, pay
from segloop.annotation.answers import ANSWER_SCHEMA
from segloop.annotation.edits import read_edits
from segloop.annotation.people import read_gold, read_names, read_records
from segloop.annotation.redraws import read_redraws
from segloop.config import Config, default_yaml, load, load_file
from segloop.data import masks
from segloop.errors import SegloopError

_LINES = (
    b"<<: *x\n",
    b"a: &x [*x]\n",
    b"x: !!python/object/apply:os.system ['true']\n",
    b"training: {steps: 0x" + b"f" * 5000 + b"}\n",
    b"seed: 2020-13-45\n",
    b"seed: 0b_\n",
    b"? [a, b]\n: 1\n",
    b"\tseed: 1\n",
    b"seed: " + b"[" * 3000 + b"\n",
    b"a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    b"g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nseed: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n",
)
"""What YAML allows and a configuration should not."""


def configuration_cases(folder: Path) -> Case:
    """Return a function that damages a configuration: it is refused, or means the same once it is written again."""
    path = folder / "config.yaml"
    sections: dict[str, Any] = yaml.safe_load(default_yaml())
    names = list(sections)

    def some(numbers: np.random.Generator) -> dict[str, Any]:
        found = {}
        for place in numbers.integers(0, len(names), numbers.integers(1, 4)).tolist():
            value = sections[names[place]]
            if isinstance(value, dict):
                keys = list(value)
                value = {keys[key]: value[keys[key]] for key in numbers.integers(0, len(keys), 3).tolist()}
            found[names[place]] = value
        return found

    def case(numbers: np.random.Generator) -> str:
        values = some(numbers)
        if numbers.random() < 0.6:
            values = odd_value(values, numbers)
        # JSON is YAML, and half of all people write it so in one place or other; it is quicker to write.
        text = json.dumps(values) if numbers.random() < 0.5 else yaml.safe_dump(_plain(values), allow_unicode=True)
        data = text.encode("utf-8", "surrogatepass")
        if numbers.random() < 0.4:
            data = damaged(data, numbers)
        if numbers.random() < 0.05:
            data += b"\n" + _LINES[numbers.integers(0, len(_LINES))]
        path.write_bytes(data)
        try:
            config = load_file(path)
        except SegloopError as error:
            assert len(str(error)) < 100_000, "the message is longer than a person reads"
            return "refused"
        if numbers.random() < 0.1:
            assert load(config.model_dump(mode="json")) == config
        assert isinstance(config, Config)
        return "valid"

    return case


def _plain(value: Any) -> Any:
    """Return a value without what YAML cannot be written with: half a character."""
    return json.loads(json.dumps(value).replace("\\ud800", "?"))


KEY = "ab" * 32


def _good_lines() -> dict[str, list[dict[str, Any]]]:
    square = np.zeros((6, 8), bool)
    square[1:4, 2:5] = True
    rle = masks.to_json(masks.encode(square))
    head = {"prediction": "7205759403792793600", "mask_key": KEY, "annotator": "a1b2", "seconds": 1.5, "price": 0.01}
    answer = head | {"schema": 1, "purpose": "decide", "reply": "no", "reason": "boundary", "t_iou": 0.8}
    answer |= {"text_version": "1", "layout": "grid", "default_used": False, "node": 3, "draw": 0, "batch": 2}
    return {
        "answers": [answer | {"answer_id": "a"}, answer | {"answer_id": "b", "reply": "yes", "reason": None}],
        "edits": [head | {"edit_id": "a", "segmentation": rle}, head | {"edit_id": "b", "segmentation": rle}],
        "redraws": [head | {"redraw_id": "a", "segmentation": rle}, head | {"redraw_id": "b", "segmentation": None}],
    }


def log_cases(folder: Path) -> Case:
    """Return a function that damages a log: the line that is wrong is named, or each record can be written again."""
    good = _good_lines()
    kinds = list(good)
    readers = {"answers": read_records, "edits": read_edits, "redraws": read_redraws}
    path = folder / "log.jsonl"

    def case(numbers: np.random.Generator) -> str:
        kind = kinds[numbers.integers(0, 3)]
        records: list[Any] = list(good[kind])
        if numbers.random() < 0.6:
            place = int(numbers.integers(0, len(records)))
            records[place] = odd_value(records[place], numbers)
        data = "".join(json.dumps(one) + "\n" for one in records).encode()
        if numbers.random() < 0.5:
            data = damaged(data, numbers)
        if numbers.random() < 0.01:
            data += b"[" * int(numbers.integers(1, 20_000))
        path.write_bytes(data)
        try:
            found = readers[kind](path)
        except SegloopError as error:
            assert "line" in str(error), error
            return "refused"
        for one in found:
            assert len(one["mask_key"]) == 32
            f"{one['annotator']}".encode()
            if kind != "answers" and one["segmentation"] is not None:
                assert masks.check(one["segmentation"]) == one["segmentation"]
        if kind == "answers":
            pa.Table.from_pylist([one | {"counted_at": []} for one in found], schema=ANSWER_SCHEMA)
        return "read"

    return case


def bundle_cases(folder: Path) -> Case:
    """Return a function that damages what comes back from people: a bundle, gold masks, names, a pay list."""
    line = _good_lines()["edits"][0]
    done = {"type": "yesno", "accepted": True, "annotationTime": 2.0, "reply": "yes"}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": line["segmentation"], "item": "f00"}
    hidden = {"hidden_test": {"iou": 0.9, "segmentation": line["segmentation"]}}
    drawn = {"type": "edit", "accepted": True, "annotationTime": 2}
    bundle = {
        "bundle_info": {"bundle_id": "b", "annotator": "a1b2"},
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [annotation | {"completed_task": done}, annotation | hidden | {"completed_task": drawn}],
    }
    visit = {"annotator": "a1b2", "adapter": "study", "worker": "w", "study": "s", "submission": "t", "time": "now"}
    good = {"bundle": bundle, "gold": {KEY: "yes", "cd" * 32: "no"}, "names": {"a1b2": "Ada"}, "pay": visit}
    kinds = list(good)

    def case(numbers: np.random.Generator) -> str:
        kind = kinds[numbers.integers(0, len(kinds))]
        value: Any = good[kind]
        data = json.dumps(odd_value(value, numbers) if numbers.random() < 0.6 else value).encode()
        if numbers.random() < 0.5:
            data = damaged(data, numbers)
        path = folder / {"names": "annotators.json", "pay": pay.FILE}.get(kind, "file.json")
        path.write_bytes(data)
        try:
            match kind:
                case "bundle":
                    info, annotations = answered.read_answers(path)
                    given = answered.Answered({"reply": "yes"}, 1.0)
                    made = answered.answered_bundle(
                        {"bundle_info": info, "annotations": annotations}, {1: given}, "b", "a", "now"
                    )
                    json.dumps(made)
                case "gold":
                    assert set(map(len, read_gold(path))) <= {32}
                case "names":
                    read_names(folder)
                case "pay":
                    visits = pay.read(folder)
                    return "read" if visits else "left aside"
        except SegloopError:
            return "refused"
        return "read"

    return case


CASES = {"configuration": configuration_cases, "logs": log_cases, "bundles": bundle_cases}
