"""Generated scenes for the demo: textured shapes that hide one another, with a hidden truth for the pool.

A scene is a textured ground, objects of a few categories with a long tail (discs are common, stars rare), and
distractors: shapes that nobody labelled, some close to a category (ellipses, hoops, pentagons), which fool a weak
detector. Each object has its own colour, pattern, size and turn; masks are the visible pixels.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from segloop.data import masks
from segloop.data.labelled import annotation
from segloop.data.places_challenge import write_instance_png
from segloop.files import atomic_directory, write_json
from segloop.randomness import generator

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Random = np.random.Generator

MIN_VISIBLE = 12
"""Objects of fewer visible pixels are not labelled."""

# Antialiasing: each pixel is sampled this many times along each side.
_SAMPLES = 3


@dataclass(frozen=True)
class Shape:
    """A shape: which points (u, v) of the plane lie in it; it fits into the unit disc."""

    name: str
    inside: Callable[[Floats, Floats, Floats], Bools]
    patterns: tuple[str, ...] = ("plain", "stripes", "dots", "checks", "speckle")
    weight: float = 1.0


@dataclass
class Scene:
    """A picture and what is labelled in it.

    Attributes
    ----------
    picture
        uint8 of shape (size, size, 3), RGB.
    objects
        (category id, mask of the visible pixels) from back to front; masks are disjoint.
    kind
        Place in `KINDS`.
    """

    picture: npt.NDArray[np.uint8]
    objects: list[tuple[int, Bools]]
    kind: int


# --- shapes ---------------------------------------------------------------------------------------------------------
# Every function takes u, v and six random numbers in [0, 1) that shape an individual.


def _disc(u: Floats, v: Floats, own: Floats) -> Bools:
    points: Bools = u * u + v * v < 1
    return points


def _square(u: Floats, v: Floats, own: Floats) -> Bools:
    points: Bools = np.maximum(abs(u), abs(v)) < 0.8
    return points


def _cross(u: Floats, v: Floats, own: Floats) -> Bools:
    width = 0.24 + 0.1 * own[0]
    points: Bools = (np.minimum(abs(u), abs(v)) < width) & (np.maximum(abs(u), abs(v)) < 0.95)
    return points


def _ring(u: Floats, v: Floats, own: Floats) -> Bools:
    radius = np.hypot(u, v)
    points: Bools = (radius < 1) & (radius > 0.42 + 0.14 * own[0])
    return points


def _polygon(sides: int) -> Callable[[Floats, Floats, Floats], Bools]:
    half = np.pi / sides

    def inside(u: Floats, v: Floats, own: Floats) -> Bools:
        angle = np.mod(np.arctan2(v, u), 2 * half) - half
        points: Bools = np.hypot(u, v) * np.cos(angle) < np.cos(half)
        return points

    return inside


def _star(u: Floats, v: Floats, own: Floats) -> Bools:
    # Ten mirrored wedges, each cut by the line from an inner corner (angle 0) to a tip (angle pi/5).
    angle = abs(np.mod(np.arctan2(v, u), 2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    inner = 0.42 + 0.08 * own[0]
    tip_x, tip_y = np.cos(np.pi / 5), np.sin(np.pi / 5)
    points: Bools = (x - inner) * tip_y < y * (tip_x - inner)
    return points


def _ellipse(u: Floats, v: Floats, own: Floats) -> Bools:
    points: Bools = np.hypot(u, v / (0.5 + 0.15 * own[0])) < 1
    return points


def _trapezium(u: Floats, v: Floats, own: Floats) -> Bools:
    points: Bools = (abs(v) < 0.6) & (abs(u) < 0.58 + (0.35 + 0.15 * own[0]) * v)
    return points


def _blob(u: Floats, v: Floats, own: Floats) -> Bools:
    angle, turn = np.arctan2(v, u), 2 * np.pi * own
    points: Bools = np.hypot(u, v) < 0.7 + 0.16 * np.sin(3 * angle + turn[0]) + 0.12 * np.sin(5 * angle + turn[1])
    return points


def _outline(
    shape: Callable[[Floats, Floats, Floats], Bools], hole: float
) -> Callable[[Floats, Floats, Floats], Bools]:
    def inside(u: Floats, v: Floats, own: Floats) -> Bools:
        points: Bools = shape(u, v, own) & ~shape(u / hole, v / hole, own)
        return points

    return inside


CATEGORIES = (
    Shape("disc", _disc, ("plain", "dots", "speckle"), 0.30),
    Shape("square", _square, ("checks", "plain", "speckle"), 0.23),
    Shape("triangle", _polygon(3), ("stripes", "plain", "checks"), 0.18),
    Shape("ring", _ring, ("stripes", "speckle", "plain"), 0.13),
    Shape("cross", _cross, ("plain", "dots", "checks"), 0.10),
    Shape("star", _star, ("plain", "speckle", "dots"), 0.06),
)
DISTRACTORS = (
    Shape("ellipse", _ellipse, weight=0.2),
    Shape("pentagon", _polygon(5), weight=0.16),
    Shape("trapezium", _trapezium, weight=0.16),
    Shape("blob", _blob, weight=0.18),
    Shape("hoop", _outline(_disc, 0.82), weight=0.1),
    Shape("square outline", _outline(_square, 0.72), weight=0.1),
    Shape("triangle outline", _outline(_polygon(3), 0.6), weight=0.1),
)


# --- patterns and grounds -------------------------------------------------------------------------------------------


def _noise(random: Random, size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Return smooth noise in [0, 1] of shape `size`, with about `cells` bumps."""
    grid = random.random((cells[0] + 1, cells[1] + 1)).astype(np.float32)
    smooth = Image.fromarray(grid).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, dtype=np.float64), 0, 1)


def _pattern(name: str, u: Floats, v: Floats, random: Random) -> Floats:
    """Return how much of the second colour each point (u, v) gets, in [0, 1]."""
    pitch = random.uniform(5.0, 8.0)
    if name == "stripes":
        return (np.sin(pitch * 1.6 * u) > 0).astype(np.float64)
    if name == "checks":
        return (np.sin(pitch * u) * np.sin(pitch * v) > 0).astype(np.float64)
    if name == "dots":
        return (np.cos(pitch * 1.3 * u) + np.cos(pitch * 1.3 * v) > 0.8).astype(np.float64)
    if name == "speckle":
        height, width = u.shape
        return _noise(random, (height, width), (max(2, height // 6), max(2, width // 6)))
    return np.zeros_like(u)


def _colour(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0)))


def _grid(size: int) -> tuple[Floats, Floats]:
    rows, columns = np.mgrid[0:size, 0:size] / size
    return rows, columns


def _meadow(random: Random, size: int) -> Floats:
    blades = _noise(random, (size, size), (12, 40)) * 0.6 + _noise(random, (size, size), (4, 4)) * 0.4
    dark, light = _colour(random.uniform(0.25, 0.33), 0.6, 0.28), _colour(random.uniform(0.2, 0.28), 0.5, 0.68)
    return dark + blades[:, :, None] * (light - dark)


def _beach(random: Random, size: int) -> Floats:
    rows, columns = _grid(size)
    sand = _colour(random.uniform(0.1, 0.13), 0.35, 0.85) * (
        0.82 + 0.2 * _noise(random, (size, size), (24, 24))[:, :, None]
    )
    shore = 0.1 + 0.25 * random.random() + 0.04 * np.sin(7 * columns + 6 * random.random())
    water = _colour(random.uniform(0.5, 0.57), 0.55, 0.75) * (
        0.8 + 0.3 * _noise(random, (size, size), (20, 5))[:, :, None]
    )
    foam = np.exp(-(((rows - shore) / 0.015) ** 2))[:, :, None]
    ground: Floats = np.where((rows < shore)[:, :, None], water, sand) * (1 - foam) + 0.95 * foam
    return ground


def _night(random: Random, size: int) -> Floats:
    rows, _ = _grid(size)
    top, bottom = _colour(random.uniform(0.62, 0.7), 0.75, 0.14), _colour(random.uniform(0.58, 0.75), 0.6, 0.42)
    sky = top + (rows[:, :, None] + 0.3 * _noise(random, (size, size), (5, 5))[:, :, None]) * (bottom - top)
    stars = random.integers(0, size, (size // 3, 2))
    sky[stars[:, 0], stars[:, 1]] = random.uniform(0.55, 1.0, (len(stars), 1))
    return sky


def _brick_wall(random: Random, size: int) -> Floats:
    rows, columns = _grid(size)
    courses = 10
    course = np.floor(rows * courses)
    along = columns * courses / 2 + 0.5 * np.mod(course, 2)
    brick = (course * 31 + np.floor(along) * 17).astype(int) % 64
    tone = 0.75 + 0.35 * random.random(64)
    mortar = (np.mod(rows * courses, 1) < 0.14) | (np.mod(along, 1) < 0.07)
    clay = _colour(random.uniform(0.0, 0.06), 0.5, 0.62) * tone[brick][:, :, None]
    rough = 0.88 + 0.24 * _noise(random, (size, size), (30, 30))[:, :, None]
    return np.where(mortar[:, :, None], _colour(0.1, 0.1, 0.72), clay) * rough


def _wooden_table(random: Random, size: int) -> Floats:
    rows, columns = _grid(size)
    warp = _noise(random, (size, size), (3, 6)) + 0.4 * _noise(random, (size, size), (16, 4))
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (9 * rows + 1.6 * warp))
    planks = np.mod(rows * 4 + random.random(), 1) < 0.035
    dark, light = _colour(random.uniform(0.05, 0.08), 0.65, 0.42), _colour(random.uniform(0.07, 0.1), 0.55, 0.72)
    wood = dark + (0.25 + 0.75 * grain[:, :, None]) * (light - dark)
    return wood * np.where(planks, 0.55, 1.0)[:, :, None] * (0.94 + 0.06 * columns[:, :, None])


def _tiled_floor(random: Random, size: int) -> Floats:
    rows, columns = _grid(size)
    tiles = random.integers(5, 8)
    odd = np.mod(np.floor(rows * tiles) + np.floor(columns * tiles), 2)
    joint = (np.mod(rows * tiles, 1) < 0.06) | (np.mod(columns * tiles, 1) < 0.06)
    hue = random.random()
    light, dark = _colour(hue, 0.08, 0.82), _colour(hue, 0.15, 0.62)
    floor = np.where(odd[:, :, None] > 0, light, dark)
    marble = 0.9 + 0.15 * _noise(random, (size, size), (8, 8))[:, :, None]
    return np.where(joint[:, :, None], 0.45, floor * marble)


# The pool's scenes, named like those of Places: the folder is the first letter, and some are nested.
KINDS: tuple[tuple[str, Callable[[Random, int], Floats]], ...] = (
    ("beach", _beach),
    ("brick_wall/outdoor", _brick_wall),
    ("meadow", _meadow),
    ("night_sky", _night),
    ("tiled_floor/indoor", _tiled_floor),
    ("wooden_table/indoor", _wooden_table),
)


# --- scenes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Placed:
    """An object on its way into the picture: the square window it touches, and what it looks like there."""

    window: tuple[slice, slice]
    cover: Floats
    colour: Floats


def make_scene(random: Random, size: int) -> Scene:
    """Draw a scene.

    Parameters
    ----------
    random
        Decides everything; the same generator state gives the same scene.
    size
        Side in pixels.
    """
    kind = int(random.integers(len(KINDS)))
    canvas = np.clip(KINDS[kind][1](random, size), 0, 1)
    top = np.zeros((size, size), np.int64)
    labelled: list[tuple[int, int]] = []
    for number, category in enumerate(_cast(random), start=1):
        shape = DISTRACTORS[-category - 1] if category < 0 else CATEGORIES[category]
        placed = _place(shape, random, canvas, top)
        if placed is None:
            continue
        _paint(canvas, placed)
        top[placed.window][placed.cover >= 0.5] = number
        if category >= 0:
            labelled.append((number, category + 1))
    grain = random.normal(0.0, 0.012, canvas.shape)
    picture = (np.clip(canvas + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
    objects = [(category, top == number) for number, category in labelled]
    return Scene(picture, [(category, mask) for category, mask in objects if mask.sum() >= MIN_VISIBLE], kind)


def _cast(random: Random) -> list[int]:
    """Return what stands in a scene, from back to front: places in CATEGORIES, or -1 - place in DISTRACTORS."""
    weights = np.array([shape.weight for shape in CATEGORIES])
    cast = random.choice(len(CATEGORIES), size=random.integers(3, 9), p=weights / weights.sum()).tolist()
    weights = np.array([shape.weight for shape in DISTRACTORS])
    others = random.choice(len(DISTRACTORS), size=random.integers(0, 3), p=weights / weights.sum())
    everything = np.array(cast + (-1 - others).tolist())
    return [int(one) for one in random.permutation(everything)]


def _place(shape: Shape, random: Random, canvas: Floats, top: npt.NDArray[np.int64]) -> _Placed | None:
    """Find a place where the new object hides at most 30 % of what is still seen of each earlier one."""
    size = len(top)
    before = np.bincount(top.ravel())
    radius = size * random.uniform(0.10, 0.20)
    turn, own = random.uniform(0, 2 * np.pi), random.random(6)
    for _ in range(12):
        centre = random.uniform(0.4 * radius, size - 0.4 * radius, 2)
        window = _window(centre, radius, size)
        cover, u, v = _cover(shape, centre, radius, turn, own, window)
        hidden = np.bincount(top[window][cover >= 0.5], minlength=len(before))
        if np.all(hidden[1:] <= 0.3 * before[1:]):
            return _Placed(window, cover, _surface(shape, u, v, own, random, canvas[window]))
    return None


def _window(centre: Floats, radius: float, size: int) -> tuple[slice, slice]:
    low = np.maximum(np.floor(centre - radius).astype(int) - 1, 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 2, size)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _cover(
    shape: Shape, centre: Floats, radius: float, turn: float, own: Floats, window: tuple[slice, slice]
) -> tuple[Floats, Floats, Floats]:
    """Return the covered share of each pixel of the window, and the pixels' own coordinates (u, v) in the shape."""
    height, width = (part.stop - part.start for part in window)
    fine = (np.arange(max(height, width) * _SAMPLES) + 0.5) / _SAMPLES
    y = (fine[: height * _SAMPLES, None] + window[0].start - centre[0]) / radius
    x = (fine[None, : width * _SAMPLES] + window[1].start - centre[1]) / radius
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    inside = shape.inside(u, v, own).reshape(height, _SAMPLES, width, _SAMPLES)
    middle = _SAMPLES // 2
    return inside.mean(axis=(1, 3)), u[middle::_SAMPLES, middle::_SAMPLES], v[middle::_SAMPLES, middle::_SAMPLES]


def _surface(shape: Shape, u: Floats, v: Floats, own: Floats, random: Random, ground: Floats) -> Floats:
    """Return the colours of an object in its window: a pattern of two colours, lit from above, with a darker rim."""
    tries = [_colour(random.random(), random.uniform(0.45, 0.95), random.uniform(0.55, 1.0)) for _ in range(3)]
    # Of three colours the one that stands out most from the ground.
    first = max(tries, key=lambda colour: float(abs(colour - ground.mean(axis=(0, 1))).sum()))
    second = first * random.uniform(0.45, 0.65) if random.random() < 0.6 else first + 0.65 * (1 - first)
    mix = _pattern(shape.patterns[random.integers(len(shape.patterns))], u, v, random)[:, :, None]
    colour = first * (1 - mix) + second * mix
    light = np.linspace(1.14, 0.86, u.shape[0])[:, None, None]
    rim = np.where(shape.inside(u / 0.86, v / 0.86, own), 1.0, 0.7)[:, :, None]
    return np.clip(colour * light * rim, 0, 1)


def _paint(canvas: Floats, placed: _Placed) -> None:
    rows, columns = placed.window
    cover = placed.cover[:, :, None]
    canvas[placed.window] *= 1 - 0.3 * _shifted(placed.cover, 2)[:, :, None]
    canvas[rows, columns] = canvas[rows, columns] * (1 - cover) + placed.colour * cover


def _shifted(cover: Floats, by: int) -> Floats:
    shadow = np.zeros_like(cover)
    shadow[by:, by:] = cover[:-by, :-by]
    return shadow


# --- files ----------------------------------------------------------------------------------------------------------


def generate(
    output: Path, *, seed: int, seed_images: int, pool_images: int, validation_images: int, image_size: int
) -> None:
    """Write the demo's data sets.

    Parameters
    ----------
    output
        The folder: `seed/` and `validation/` (images, instance PNGs as in the Places Challenge 2017),
        `categories.txt`, `pool/` (images in folders of scenes, `list.txt` as in Places365, `truth.json` as in COCO) and
        `complete.json`, which counts what there is.
    seed
        Seed of everything.
    seed_images, pool_images, validation_images
        Numbers of scenes.
    image_size
        Side of a scene in pixels.
    """
    with atomic_directory(output) as folder:
        counts = _write_labelled(folder / "seed", "seed", seed, seed_images, image_size)
        _write_category_table(folder / "categories.txt", counts)
        _write_labelled(folder / "validation", "validation", seed, validation_images, image_size)
        pool = _write_pool(folder / "pool", seed, pool_images, image_size)
        complete = {
            "schema_version": 1,
            "seed": seed,
            "images": {"seed": seed_images, "validation": validation_images, "pool": pool_images},
            "image_size": image_size,
            "instances": {"seed": int(counts[:, 0].sum()), "pool": pool},
        }
        write_json(folder / "complete.json", complete)


def _write_labelled(folder: Path, part: str, seed: int, images: int, size: int) -> npt.NDArray[np.int64]:
    """Write images and instance PNGs; return instances and pixels of each category, int64 of shape (categories, 2)."""
    (folder / "images").mkdir(parents=True)
    counts = np.zeros((len(CATEGORIES), 2), np.int64)
    for number in tqdm(range(1, images + 1), desc=f"{part} scenes", unit="image", disable=None):
        scene = make_scene(generator("demo", seed, part, number), size)
        name = f"scene_{number:08d}"
        _save_picture(folder / "images" / f"{name}.jpg", scene)
        write_instance_png(folder / "annotations" / f"{name}.png", list(scene.objects), (size, size))
        for category, mask in scene.objects:
            counts[category - 1] += (1, int(mask.sum()))
    return counts


def _save_picture(path: Path, scene: Scene) -> None:
    Image.fromarray(scene.picture).save(path, quality=93, subsampling=0)


def _write_category_table(path: Path, counts: npt.NDArray[np.int64]) -> None:
    """Write the table in the layout of the challenge's instanceInfo100_train.txt, padded names and all."""
    lines = ["Idx\tObject Names\t\t#Inst.\t#Pix. per Inst.(*1e3)"]
    for number, (shape, (instances, pixels)) in enumerate(zip(CATEGORIES, counts.tolist(), strict=True), start=1):
        lines.append(f"{number}\t{shape.name:<20}\t{instances}\t{pixels / max(instances, 1) / 1000:.2f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_pool(folder: Path, seed: int, images: int, size: int) -> int:
    """Write the pool's pictures, its list and its hidden truth; return the number of instances."""
    scenes = [0] * len(KINDS)
    lines: list[tuple[int, str]] = []
    truth: dict[str, Any] = {
        "info": {"description": "hidden truth of the demo's pool"},
        "images": [],
        "annotations": [],
        "categories": [{"id": place, "name": shape.name} for place, shape in enumerate(CATEGORIES, start=1)],
    }
    for number in tqdm(range(1, images + 1), desc="pool scenes", unit="image", disable=None):
        scene = make_scene(generator("demo", seed, "pool", number), size)
        scenes[scene.kind] += 1
        kind = KINDS[scene.kind][0]
        name = f"{kind[0]}/{kind}/{scenes[scene.kind]:08d}.jpg"
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        _save_picture(folder / "images" / name, scene)
        lines.append((scene.kind, name))
        truth["images"].append({"id": number, "file_name": name, "width": size, "height": size})
        for category, mask in scene.objects:
            made = annotation(len(truth["annotations"]) + 1, number, category, masks.encode(mask))
            truth["annotations"].append(made)
    # Places lists its images scene by scene.
    listed = "".join(f"/{name} {kind}\n" for kind, name in sorted(lines))
    (folder / "list.txt").write_text(listed, encoding="utf-8")
    write_json(folder / "truth.json", truth)
    return len(truth["annotations"])
