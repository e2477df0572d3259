"""Drawings for the documents: `python -m segloop.reporting.diagrams docs/`.

The loop (after the thesis's Figure 3-1), the model with the embedding marked (after Figure 3-2), and the overview of
the README.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segloop.randomness import generator
from segloop.reporting.canvas import Box, Canvas, Point
from segloop.reporting.illustrations import Example, accepted, crop, examples, labelled, predicted, scene, spoilt
from segloop.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PAPER, SKY, VERMILLION, style

SEED, POOL = (6, 23), (31, 19, 13, 59)
"""Scenes that look well together."""
LIGHT, WARM = "#F4F7FA", "#FFF6E5"


def draw_all(folder: Path) -> None:
    """Write loop.svg, loop.png, model.svg, model.png and overview.png.

    Parameters
    ----------
    folder
        Where the drawings go; it is made if need be.
    """
    with style():
        draw_loop().save(folder / "loop.svg", folder / "loop.png")
        draw_model().save(folder / "model.svg", folder / "model.png")
        draw_overview().save(folder / "overview.png")


# --- the loop ---------------------------------------------------------------------------------------------------------

_CARD_WIDTH, _CARD_HEIGHT, _STEP = 236, 236, 290
_UPPER, _LOWER, _FIRST = 24, 396, 24


def draw_loop() -> Canvas:
    """Return the drawing of the loop: one turn is one iteration."""
    canvas = Canvas(4 * _STEP - 6, 656)
    _loop_arrows(canvas)
    _seed_card(canvas, _loop_card(0, _UPPER))
    _train_card(canvas, _loop_card(1, _UPPER))
    _predict_card(canvas, _loop_card(2, _UPPER))
    _cluster_card(canvas, _loop_card(3, _UPPER))
    _ask_card(canvas, _loop_card(3, _LOWER))
    _decide_card(canvas, _loop_card(2, _LOWER))
    _merge_card(canvas, _loop_card(1, _LOWER))
    _result_card(canvas, _loop_card(0, _LOWER))
    return canvas


def _loop_card(column: int, top: float) -> Box:
    return _FIRST + column * _STEP, top, _CARD_WIDTH, _CARD_HEIGHT


def _loop_arrows(canvas: Canvas) -> None:
    upper, lower = _UPPER + _CARD_HEIGHT / 2, _LOWER + _CARD_HEIGHT / 2
    right = [_FIRST + column * _STEP + _CARD_WIDTH for column in range(4)]
    left = [_FIRST + column * _STEP for column in range(4)]
    for column in range(3):
        canvas.arrow([(right[column], upper), (left[column + 1] - 1, upper)], colour=GREY if column == 0 else INK)
        canvas.arrow([(left[column + 1], lower), (right[column] + 1, lower)], colour=GREY if column == 0 else INK)
    down, up = left[3] + _CARD_WIDTH / 2, left[1] + _CARD_WIDTH / 2
    canvas.arrow([(down, _UPPER + _CARD_HEIGHT), (down, _LOWER - 1)])
    canvas.arrow([(up, _LOWER), (up, _UPPER + _CARD_HEIGHT + 1)])
    canvas.text((up - 14, 314), "next iteration,\nuntil it stops paying", align="right", color=GREY, style="italic")
    _pool_strip(canvas, left[2], right[2])


def _pool_strip(canvas: Canvas, left: float, right: float) -> None:
    middle = (left + right) / 2
    for place in range(4):
        canvas.picture(scene(POOL[place]).picture, (left - 18 + 70 * place, 290), 62)
    canvas.text((middle, 362), "pool: unlabelled images", align="center", weight="bold")
    canvas.arrow([(middle, 288), (middle, _UPPER + _CARD_HEIGHT + 1)], colour=GREY)


def _frame(canvas: Canvas, box: Box, number: int | None, title: str, words: str, rule: str) -> None:
    left, top, _, height = box
    loop = number is not None
    canvas.card(box, face=PAPER if loop else LIGHT, edge=INK if loop else GREY, width=1.4)
    if loop:
        canvas.badge((left + 26, top + 26), str(number), face=BLUE)
    canvas.text((left + (48 if loop else 18), top + 20), title, size=12, weight="bold")
    canvas.text((left + 18, top + height - 74), words, size=9)
    canvas.text((left + 18, top + height - 24), rule, size=8, color=GREY, family="DejaVu Sans Mono")


def _seed_card(canvas: Canvas, box: Box) -> None:
    _frame(canvas, box, None, "seed set", "few images, labelled by hand:\niteration 0 learns from them", "import_seed")
    for place in range(2):
        canvas.picture(labelled(SEED[place]), (box[0] + 18 + 104 * place, box[1] + 50), 96)


def _train_card(canvas: Canvas, box: Box) -> None:
    words = "Mask R-CNN learns from the\ntraining set; AP is measured"
    _frame(canvas, box, 1, "train", words, "train_detector")
    left, top = box[0] + 40, box[1] + 54
    for place, (side, colour) in enumerate(((88, SKY), (66, SKY), (46, SKY), (30, ORANGE), (22, BLUE))):
        x = left + (0, 42, 78, 112, 142)[place]
        canvas.polygon(
            [(x, top + 46 - side / 2), (x + 18, top + 40 - side / 2), (x + 18, top + 40 + side / 2),
             (x, top + 46 + side / 2)],
            face=colour,
        )  # fmt: skip


def _predict_card(canvas: Canvas, box: Box) -> None:
    words = "masks with category, score\nand embedding, shard by shard"
    _frame(canvas, box, 2, "predict", words, "predict_shard")
    for place in range(2):
        canvas.picture(predicted(POOL[place]), (box[0] + 18 + 104 * place, box[1] + 50), 96)


def _cluster_card(canvas: Canvas, box: Box) -> None:
    words = "similar embeddings join early:\na tree over all predictions"
    _frame(canvas, box, 3, "embed and cluster", words, "link_partitions, join_trees")
    left, top = box[0] + 16, box[1] + 48
    x = [left + 18 + 33.6 * place for place in range(6)]
    for place, example in enumerate([*examples("disc", 2), *examples("star", 2), *examples("ring", 2)]):
        canvas.picture(crop(example, 96), (x[place] - 15, top + 66), 30)
    middles = []
    for place, height in zip((0, 2, 4), (40, 34, 46), strict=True):
        _join(canvas, (x[place], top + 64), (x[place + 1], top + 64), top + height)
        middles.append(((x[place] + x[place + 1]) / 2, top + height))
    _join(canvas, middles[0], middles[1], top + 18)
    whole = (middles[0][0] + middles[1][0]) / 2, top + 18
    _join(canvas, whole, middles[2], top + 4)


def _join(canvas: Canvas, first: Point, second: Point, height: float) -> None:
    canvas.line([first, (first[0], height), (second[0], height), second], width=1.6)


def _ask_card(canvas: Canvas, box: Box) -> None:
    words = "“Is this mask good?” for a few\nrandom masks of a cluster"
    _frame(canvas, box, 4, "ask", words, "annotate_people")
    good, bad = examples("ring", 1)[0], spoilt(examples("star", 3)[2])
    for place, (example, word, colour) in enumerate(((good, "✓ yes", BLUE), (bad, "✗ no", VERMILLION))):
        left, top = box[0] + 32 + 98 * place, box[1] + 48
        canvas.picture(crop(example), (left, top), 74)
        canvas.card((left + 4, top + 80, 66, 24), face=colour, edge=colour, radius=8)
        canvas.text((left + 37, top + 92), word, size=9.5, align="center", color=PAPER, weight="bold", middle=True)


def _decide_card(canvas: Canvas, box: Box) -> None:
    words = "answers agree: accept or reject\nthe cluster; else split and ask"
    _frame(canvas, box, 5, "decide", words, "policy: thesis, per_mask")
    left, top = box[0], box[1] + 60
    root, inner = (left + 132, top), (left + 84, top + 40)
    leaves = [(left + 48, top + 82), (left + 120, top + 82), (left + 186, top + 40)]
    for a, b in ((root, inner), (root, leaves[2]), (inner, leaves[0]), (inner, leaves[1])):
        canvas.line([a, b])
    for centre in (root, inner):
        canvas.badge(centre, "?", face=GREY)
    for centre, mark, colour in zip(leaves, "✓✗✓", (BLUE, VERMILLION, BLUE), strict=True):
        canvas.badge(centre, mark, face=colour, radius=15)


def _merge_card(canvas: Canvas, box: Box) -> None:
    words = "accepted masks join the training\nset; undecided ones are ignored"
    _frame(canvas, box, 6, "collect and merge", words, "merge_training_set")
    left, top = box[0], box[1] + 56
    canvas.picture(labelled(SEED[0]), (left + 22, top), 80)
    canvas.text((left + 118, top + 40), "+", size=22, align="center", middle=True, weight="bold", color=BLUE)
    canvas.picture(accepted(POOL[0]), (left + 134, top), 80)


def _result_card(canvas: Canvas, box: Box) -> None:
    words = "a COCO file: every mask knows\nits model, cluster and answers"
    _frame(canvas, box, None, "data set", words, "collected.json")
    for place in range(3):
        shift = 14 * (2 - place)
        canvas.picture(accepted(POOL[2 - place]), (box[0] + 58 + shift, box[1] + 74 - shift), 82)


# --- the model --------------------------------------------------------------------------------------------------------


def draw_model() -> Canvas:
    """Return the drawing of the detector: which of its numbers are the embedding."""
    canvas = Canvas(1236, 480)
    middle = 246.0
    canvas.picture(scene(POOL[0]).picture, (24, middle - 62), 124)
    canvas.text((86, middle + 78), "image", align="center", weight="bold")
    canvas.arrow([(150, middle), (181, middle)])
    _backbone(canvas, 184, middle)
    canvas.arrow([(330, middle), (373, middle)])
    _block(canvas, (376, middle - 44, 116, 88), "RPN", "proposes boxes", LIGHT)
    canvas.line([(492, middle), (522, middle)], width=2.2)
    _box_branch(canvas, 522, 108, middle)
    _mask_branch(canvas, 522, 398, middle)
    return canvas


def _backbone(canvas: Canvas, left: float, middle: float) -> None:
    for place, side in enumerate((132, 98, 68, 42)):
        x = left + 38 * place
        canvas.polygon(
            [(x, middle - side / 2), (x + 24, middle - side / 2 - 9), (x + 24, middle + side / 2 - 9),
             (x, middle + side / 2)],
            face=SKY,
        )  # fmt: skip
    canvas.text((left + 70, middle + 78), "backbone", align="center", weight="bold")
    canvas.text((left + 70, middle + 98), "ResNet-101 + FPN", size=9, align="center", color=GREY)


def _block(canvas: Canvas, box: Box, title: str, words: str, face: str, *, strong: bool = False) -> None:
    left, top, width, height = box
    canvas.card(box, face=face, edge=VERMILLION if strong else INK, width=2.6 if strong else 1.2, radius=8)
    canvas.text((left + width / 2, top + height / 2 - 18), title, align="center", weight="bold")
    canvas.text((left + width / 2, top + height / 2 + 6), words, size=9, align="center", color=GREY)


def _row_of_blocks(
    canvas: Canvas, left: float, middle: float, source: float, blocks: Sequence[tuple[str, str]]
) -> None:
    canvas.arrow([(left, source), (left, middle), (left + 27, middle)])
    at = left + 30
    for place, (title, words) in enumerate(blocks):
        width = 112 if place == 0 else 88
        if place:
            canvas.arrow([(at - 28, middle), (at - 3, middle)])
        _block(canvas, (at, middle - 38, width, 76), title, words, LIGHT)
        at += width + 28


_LAST, _OUTPUTS, _OUTPUT_WIDTH = 374, 450, 236
"""Right edge of the last block and left edge of the outputs, from where the branches part."""


def _box_branch(canvas: Canvas, left: float, middle: float, source: float) -> None:
    _row_of_blocks(canvas, left, middle, source, [("RoIAlign", "7 × 7 × 256"), ("FC", "1024, ReLU")])
    canvas.text((left + 86, middle - 60), "box head", align="center", weight="bold", color=GREY)
    canvas.arrow([(left + 258, middle), (left + 283, middle)])
    _block(canvas, (left + 286, middle - 38, 88, 76), "FC", "1024, ReLU", WARM, strong=True)
    start, outputs = left + _LAST, left + _OUTPUTS
    for shift, title, words in ((-40, "category and score", "of the seed set's categories"), (40, "box", "refined")):
        target = middle + shift
        canvas.arrow([(start + 2, middle), (start + 36, middle), (start + 36, target), (outputs - 3, target)])
        canvas.card((outputs, target - 30, _OUTPUT_WIDTH, 60), edge=INK, radius=8)
        canvas.text((outputs + _OUTPUT_WIDTH / 2, target - 17), title, align="center", weight="bold")
        canvas.text((outputs + _OUTPUT_WIDTH / 2, target + 6), words, size=9, align="center", color=GREY)
    _embedding(canvas, left + 330, middle + 40, (outputs, source - 44, _OUTPUT_WIDTH, 100))


def _embedding(canvas: Canvas, x: float, top: float, box: Box) -> None:
    left, upper, width, height = box
    middle = upper + height / 2
    canvas.arrow([(x, top), (x, middle), (left - 3, middle)], colour=VERMILLION, width=3)
    canvas.card(box, face=WARM, edge=VERMILLION, width=2.6, radius=8)
    values = generator("illustration", "embedding").gamma(0.7, 1.0, 36)
    for place, value in enumerate((4 + 28 * np.minimum(values / 3, 1)).tolist()):
        bar = (left + 11 + 6 * place, upper + 44 - value, 4, value)
        canvas.rectangle(bar, face=VERMILLION, edge=VERMILLION, width=0)
    canvas.text((left + width / 2, upper + 54), "embedding: 1024 numbers", align="center", weight="bold")
    words = "kept with each mask, clustered"
    canvas.text((left + width / 2, upper + 77), words, size=9, align="center", color=GREY)


def _mask_branch(canvas: Canvas, left: float, middle: float, source: float) -> None:
    blocks = [("RoIAlign", "14 × 14 × 256"), ("4 conv", "256, ReLU"), ("deconv", "28 × 28")]
    _row_of_blocks(canvas, left, middle, source, blocks)
    canvas.text((left + 86, middle + 50), "mask head", align="center", weight="bold", color=GREY)
    outputs = left + _OUTPUTS
    canvas.arrow([(left + _LAST, middle), (outputs - 3, middle)])
    canvas.card((outputs, middle - 50, _OUTPUT_WIDTH, 100), edge=INK, radius=8)
    canvas.picture(crop(_largest(POOL[0])), (outputs + 10, middle - 40), 80)
    canvas.text((outputs + 104, middle - 22), "mask", weight="bold")
    canvas.text((outputs + 104, middle + 2), "pasted into the\nimage", size=9, color=GREY)


def _largest(number: int) -> Example:
    shown = scene(number)
    return Example(shown.picture, max((mask for _, mask in shown.objects), key=lambda mask: int(mask.sum())))


# --- the overview -----------------------------------------------------------------------------------------------------


def draw_overview() -> Canvas:
    """Return the picture of the README: from a pool of images to a data set, with few questions."""
    canvas = Canvas(1260, 484)
    top, middle = 82.0, 225.0
    headings = (
        (24, "A model trained on few\nimages predicts masks"),
        (330, "Masks that look alike\nform clusters"),
        (692, "A few answers\ndecide about each cluster"),
        (996, "Good masks make a\nlarge labelled data set"),
    )
    for number, (left, words) in enumerate(headings, start=1):
        canvas.badge((left + 14, 36), str(number), face=BLUE, radius=14, size=11.5)
        canvas.text((left + 36, 22), words, size=10.5, weight="bold")
    for place, number in enumerate(POOL):
        shift, drop = 122 * (place % 2), 122 * (place // 2)
        canvas.picture(predicted(number), (24 + shift, middle - 118 + drop), 114)
        canvas.picture(accepted(number), (996 + shift, middle - 118 + drop), 114)
    canvas.arrow([(272, middle), (316, middle)])
    for number, (shown, answers, verdict, colour) in enumerate(_clusters()):
        _cluster_row(canvas, (330, top + 98 * number), shown, answers, verdict, colour)
    canvas.arrow([(940, middle), (984, middle)])
    canvas.arrow([(1114, 352), (1114, 432), (142, 432), (142, 352)], colour=GREEN, width=3, head=20)
    canvas.card((478, 410, 304, 44), face=PAPER, edge=GREEN, width=2, radius=10)
    canvas.text((630, 432), "train a better model, and repeat", size=11, align="center", middle=True, weight="bold")
    return canvas


def _clusters() -> list[tuple[list[Example], str, str, str]]:
    rings, discs, stars = examples("ring", 4), examples("disc", 4, start=60), examples("star", 4)
    mixed = [stars[0], spoilt(stars[1]), stars[2], spoilt(stars[3])]
    return [
        (rings, "✓✓✓", "accept all", BLUE),
        ([spoilt(example) for example in discs], "✗✗✗", "reject all", VERMILLION),
        (mixed, "✓✗✓", "split, ask again", GREY),
    ]


def _cluster_row(canvas: Canvas, at: Point, shown: list[Example], answers: str, verdict: str, colour: str) -> None:
    left, top = at
    canvas.card((left, top, 326, 90), face=LIGHT, edge=PALE, radius=8)
    for place, example in enumerate(shown):
        canvas.picture(crop(example), (left + 8 + 79 * place, top + 8), 73)
    canvas.line([(left + 326, top + 45), (left + 344, top + 45)], colour=GREY)
    for place, answer in enumerate(answers):
        centre = (left + 362 + 32 * place, top + 45)
        canvas.badge(centre, answer, face=BLUE if answer == "✓" else VERMILLION, radius=13)
    canvas.text((left + 454, top + 45), verdict, size=11, color=colour, weight="bold", middle=True)


def main(arguments: list[str]) -> None:
    """Draw everything into the folder named on the command line."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m segloop.reporting.diagrams FOLDER")
    folder = Path(arguments[0])
    draw_all(folder)
    print(f"drawn: loop, model and overview in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
