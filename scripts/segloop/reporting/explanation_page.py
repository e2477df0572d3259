"""The page that explains one collected mask: what it shows, and everything that led to it."""

import base64
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segloop.collection.explanation import Explanation
from segloop.data import masks
from segloop.data.images import ImageError, open_image
from segloop.files import atomic_file
from segloop.reporting.drawing import Pixels, draw_mask, inner_edge, rgb
from segloop.reporting.style import YELLOW
from segloop.reporting.table_page import CSS

CROP, WHOLE = 360, 720
"""Sides of the pictures in pixels."""

Rows = list[tuple[str, object]]


def write_explanation_page(explanation: Explanation, run: Path, html: Path) -> None:
    """Write a self-contained page.

    Parameters
    ----------
    run
        The run directory; paths of images are relative to it.
    html
        Where the page goes.
    """
    with atomic_file(html) as temporary:
        temporary.write_text(_page(explanation, run), encoding="utf-8")


def explanation_text(explanation: Explanation) -> str:
    """Return the same for a terminal, without pictures."""
    parts = [(heading, rows) for heading, rows in _sections(explanation) if rows]
    width = max(len(name) for _, rows in parts for name, _ in rows)
    lines = []
    for heading, rows in parts:
        lines += ["", heading, *(f"  {name.ljust(width)}  {_plain(value)}" for name, value in rows)]
    lines += ["", "Clusters that hold it", *(f"  {_cluster(one)}" for one in explanation.path)]
    answers = [f"  {_answer(one)}" for one in explanation.answers] or ["  none: it was accepted without a question"]
    lines += ["", "Answers it rests on", *answers, ""]
    return "\n".join(lines[1:])


def _sections(one: Explanation) -> list[tuple[str, Rows]]:
    annotation, provenance = one.annotation, one.annotation["provenance"]
    where = f"results/iter_{one.iteration}/collected.json, id {one.annotation_id}"
    mask: Rows = [
        ("image", one.image["file_name"]),
        ("size of the image", f"{one.image['width']} x {one.image['height']} pixels"),
        ("category", f"{one.category} (id {annotation['category_id']})"),
        ("area", f"{annotation['area']:,} pixels"),
        ("box (x, y, width, height)", ", ".join(f"{value:g}" for value in annotation["bbox"])),
        ("score", f"{annotation['score']:.3f}"),
        ("mask key", provenance["mask_key"]),
        ("stands in", where),
    ]
    detector: Rows = [
        ("iteration", one.iteration),
        ("prediction", provenance["prediction"]),
        ("shard and row", f"{provenance['shard']}, {provenance['row']}"),
        ("SHA-256 of the weights", provenance["weights_sha256"]),
        *((name, one.model[name]) for name in ("backend", "architecture", "device") if name in one.model),
    ]
    other = {
        "iteration",
        "prediction",
        "shard",
        "row",
        "mask_key",
        "weights_sha256",
        "node",
        "verdict_reason",
        "answers",
    }
    detector += [(name.replace("_", " "), value) for name, value in provenance.items() if name not in other]
    return [
        ("The mask", mask),
        ("What predicted it", detector),
        ("Why it was accepted", _verdict(one)),
        ("What audits showed of its set", _audit(one.certificate)),
        (f"What an accepted mask of iteration {one.iteration} came to", _cost(one.cost)),
    ]


_REASONS = {
    "answered": "a person (or the truth, in a simulation) said yes to it",
    "cluster": "the answers about its cluster agreed",
    "prefix": "it ranks within the set that the policy chose and an audit vouched for",
    "edited": "a person redrew it",
}


def _verdict(one: Explanation) -> Rows:
    provenance = one.annotation["provenance"]
    reason = provenance["verdict_reason"]
    rows: Rows = [("reason", f"{reason}: {_REASONS.get(reason, 'see docs/policies.md')}")]
    if provenance["node"] is not None:
        rows.append(("decided by cluster", provenance["node"]))
    counts = [(reply, sum(each["reply"] == reply for each in one.answers)) for reply in ("yes", "no", "other")]
    rows.append(("answers it rests on", ", ".join(f"{count} {reply}" for reply, count in counts if count) or "none"))
    return rows


def _audit(certificate: dict[str, Any] | None) -> Rows:
    if certificate is None:
        return [("certificate", "no audit covers it")]
    return [
        ("certificate", certificate["certificate_id"]),
        (
            "set",
            f"{certificate['size']:,} masks, {certificate['asked']:,} questions, {certificate['bad']:,} not good",
        ),
        ("good, at least", f"{certificate['claimed']:.3f} with confidence {1 - certificate['delta']:.4f}"),
        ("wanted", f"{certificate['target']:.3f}: {'shown' if certificate['passed'] else 'not shown'}"),
    ]


def _cost(cost: dict[str, Any] | None) -> Rows:
    if cost is None:
        return []
    names = {"questions": "questions", "seconds": "seconds of people", "total_dollars": "dollars, machines included"}
    return [(text, "–" if cost.get(name) is None else f"{cost[name]:,.4g}") for name, text in names.items()]


def _plain(value: object) -> str:
    return "–" if value is None else str(value)


def _cluster(one: dict[str, Any]) -> str:
    height = "" if one["height"] is None else f", merged at {one['height']:.3f}"
    members = "the mask itself" if one["height"] is None else f"{one['size']:,} masks"
    before, after = ("→ ", " (decided here)") if one["decided"] else ("", "")
    return f"{before}node {one['node']}: {members}{height}{after}"


def _answer(one: dict[str, Any]) -> str:
    who = one["annotator"] if one["name"] is None else f"{one['name']} ({one['annotator']})"
    when = f", {one['time']}" if one["time"] else ""
    took = "" if one["seconds"] is None else f", {one['seconds']:.1f} s"
    reason = f" ({one['reason']})" if one["reason"] else ""
    return f"{one['reply']}{reason} about {one['about']}, by {who}, asked to {one['purpose']}{when}{took}"


# --- the page ---------------------------------------------------------------------------------------------------------


def _page(one: Explanation, run: Path) -> str:
    title = f"{one.category}, mask {one.annotation_id} of iteration {one.iteration}"
    sections = "\n".join(_section(heading, rows) for heading, rows in _sections(one) if rows)
    path = "".join(f"<li>{escape(_cluster(each))}</li>" for each in one.path)
    answers = "".join(f"<li>{escape(_answer(each))}</li>" for each in one.answers)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title, quote=False)}</title>
<style>
{CSS}img {{ max-width: 100%; height: auto; margin-right: 1rem; }}
th, td {{ text-align: left; white-space: normal; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.05rem; margin-top: 1.6rem; }}
</style>
</head>
<body>
<h1>{escape(title, quote=False)}</h1>
{_pictures(one, run)}
{sections}
<h2>Clusters that hold it, from the whole tree down to itself</h2>
<ol>{path or "<li>It is in no tree.</li>"}</ol>
<h2>Answers it rests on</h2>
<ol>{answers or "<li>None: it was accepted without a question.</li>"}</ol>
</body>
</html>
"""


def _section(heading: str, rows: Rows) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_plain(value))}</td></tr>' for name, value in rows
    )
    return f"<h2>{escape(heading)}</h2>\n<table><tbody>{lines}</tbody></table>"


def _pictures(one: Explanation, run: Path) -> str:
    try:
        image = open_image(run / one.image["file_name"])
    except ImageError as error:
        return f"<p>Its image cannot be shown: {escape(str(error))}</p>"
    mask = masks.decode(masks.from_json(one.annotation["segmentation"]))
    if image.shape[:2] != mask.shape:
        return "<p>Its image cannot be shown: it has changed its size since it was predicted.</p>"
    crop = draw_mask(image, mask, side=CROP)
    whole = _with_outline(image, mask)
    return (
        f'<p><img alt="The mask, its surroundings dimmed" width="{CROP}" height="{CROP}" src="{_embedded(crop)}">'
        f'<img alt="The mask in its whole image" src="{_embedded(whole)}"></p>'
    )


def _with_outline(image: Pixels, mask: Any) -> Pixels:
    scale = min(1.0, WHOLE / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    small = np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    shape = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) >= 64
    small[inner_edge(shape)] = rgb(YELLOW)
    return small


def _embedded(pixels: Pixels) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
