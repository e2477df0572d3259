"""Pictures for the diagrams, from generated scenes: nothing needs to be downloaded or shown with a licence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from segloop.data.demo import CATEGORIES, Scene, make_scene
from segloop.randomness import generator
from segloop.reporting.drawing import Mask, Pixels, draw_mask, inner_edge, mask_box, rgb
from segloop.reporting.style import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW

SIDE = 192
COLOURS = (ORANGE, SKY, GREEN, YELLOW, PURPLE, BLUE)


@dataclass(frozen=True)
class Example:
    """An object of a scene that a diagram shows as a predicted mask."""

    picture: Pixels
    mask: Mask


@cache
def scene(number: int) -> Scene:
    """Return one of an endless row of scenes; the same number always gives the same one."""
    return make_scene(generator("illustration", number), SIDE)


def overlay(picture: Pixels, objects: Sequence[tuple[int, Mask]], *, strength: float = 0.45) -> Pixels:
    """Return a picture with masks tinted and outlined, one colour a category."""
    drawn = picture.astype(np.float64)
    for category, mask in objects:
        colour = np.array(rgb(COLOURS[(category - 1) % len(COLOURS)]))
        drawn[mask] = (1 - strength) * drawn[mask] + strength * colour
        drawn[_thick_edge(mask)] = colour
    return np.rint(drawn).astype(np.uint8)


def labelled(number: int) -> Pixels:
    """Return a scene with all its masks, as people label it."""
    return overlay(scene(number).picture, scene(number).objects)


def predicted(number: int) -> Pixels:
    """Return a scene as a weak detector sees it: every third mask is off."""
    objects = [
        (category, _moved(mask) if _is_off(place) else mask)
        for place, (category, mask) in enumerate(scene(number).objects)
    ]
    return overlay(scene(number).picture, objects)


def accepted(number: int) -> Pixels:
    """Return a scene with those masks of `predicted` that are good."""
    objects = [each for place, each in enumerate(scene(number).objects) if not _is_off(place)]
    return overlay(scene(number).picture, objects)


def _is_off(place: int) -> bool:
    return place % 3 == 1


def _moved(mask: Mask) -> Mask:
    """Move a mask down and left by a third of its size; what leaves the picture is lost."""
    _, _, height, width = mask_box(mask)
    down, left = height // 3, width // 3
    moved = np.zeros_like(mask)
    moved[down:, : mask.shape[1] - left] = mask[: mask.shape[0] - down, left:]
    return moved


def _thick_edge(mask: Mask) -> Mask:
    # Two pixels: the pictures are shown at about half their size.
    edge = inner_edge(mask)
    return edge | inner_edge(mask & ~edge)


def examples(category: str, count: int, *, start: int = 0) -> list[Example]:
    """Return whole, well visible objects of a category, from the scenes `start` onwards."""
    wanted = next(number for number, shape in enumerate(CATEGORIES, start=1) if shape.name == category)
    found: list[Example] = []
    for number in range(start, start + 400):
        shown = scene(number)
        found += [Example(shown.picture, mask) for mask in _large(shown, wanted)]
        if len(found) >= count:
            return found[:count]
    raise ValueError(f"400 scenes hold only {len(found)} examples of {category}")


def _large(shown: Scene, wanted: int) -> Iterator[Mask]:
    for category, mask in shown.objects:
        top, left, height, width = mask_box(mask)
        whole = top > 4 and left > 4 and top + height < SIDE - 4 and left + width < SIDE - 4
        if category == wanted and whole and min(height, width) > 36 and max(height, width) < 1.25 * min(height, width):
            yield mask


def spoilt(example: Example) -> Example:
    """Return the same object with a bad mask: moved by a third of its size, as a weak detector may place it."""
    return Example(example.picture, _moved(example.mask))


def crop(example: Example, side: int = 160) -> Pixels:
    """Return the crop around the mask, its surroundings dimmed."""
    return draw_mask(example.picture, example.mask, side=side)
