"""Which format a file or folder is of, by what it holds."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from segloop.config import LabelledSetConfig
from segloop.data.formats import FORMATS
from segloop.data.json_stream import JsonFile, Member
from segloop.errors import SegloopError


def guess_format(path: Path) -> LabelledSetConfig:
    """Return how a file or folder can be read; its paths are absolute.

    Images are looked for in a folder `images` beside the annotations, or where the format keeps them.

    Raises
    ------
    SegloopError
        If it is of no known format, or needs more than a path.
    """
    path = path.absolute()
    if not path.exists():
        raise SegloopError(f"{path} does not exist.")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    if found is None:
        raise SegloopError(f"{path} is of no format that can be told from it. Name one: {', '.join(FORMATS)}.")
    return found


def _set(word: str, annotations: Path, images: Path, **more: Path) -> LabelledSetConfig:
    values = {"format": word, "annotations": annotations, "images": images, **more}
    return LabelledSetConfig.model_validate({key: str(value) for key, value in values.items()})


def _of_file(path: Path) -> LabelledSetConfig | None:
    if path.suffix.lower() != ".json":
        return None
    images = _first(path.parent / "images", path.parent.parent / "images", path.parent)
    with JsonFile(path) as file:
        kind = _kind(list(_heads(file)))
        if file.is_list:
            raise SegloopError(
                f"{path} is a list, as results files are. Use format coco_results, and set `categories` to the COCO "
                "file that its results refer to."
            )
    return _set(kind, path, images) if kind is not None else None


def _heads(file: JsonFile) -> list[Member]:
    """Return the first element of each list of a file."""
    heads: dict[str, Member] = {}
    for member in file.members():
        if member.listed:
            heads.setdefault(member.key, member)
        if file.is_list:
            break
    return list(heads.values())


def _kind(heads: list[Member]) -> str | None:
    first = {head.key: head.value if isinstance(head.value, dict) else {} for head in heads}
    if "annotations" not in first and "images" not in first:
        return None
    image, one = first.get("images", {}), first.get("annotations", {})
    if "segments_info" in one:
        return "coco_panoptic"
    if "completed_task" in one or "current_task" in one:
        return "question_bundle"
    return "lvis" if "not_exhaustive_category_ids" in image else "coco"


def _of_folder(path: Path) -> LabelledSetConfig | None:
    tests: list[tuple[str, Callable[[], LabelledSetConfig | None]]] = [
        ("**/*_seg.png", lambda: _ade20k(path)),
        ("**/*_instanceIds.png", lambda: _set("cityscapes", path, _cityscapes_images(path))),
        ("SegmentationObject/*.png", lambda: _voc(path / "SegmentationObject")),
        ("*/masks/*.png", lambda: _set("mask_folders", path, path)),
    ]
    for pattern, make in tests:
        if any(islice(path.glob(pattern), 1)):
            return make()
    if path.name == "SegmentationObject":
        return _voc(path)
    if any(islice(path.glob("**/sa_*.json"), 1)):
        return _set("sa1b", path, path)
    names = _first(path / "data.yaml", path.parent / "data.yaml", path.parent.parent / "data.yaml")
    if names.exists() and any(islice(path.glob("**/*.txt"), 1)):
        labels = path / "labels" if (path / "labels").is_dir() else path
        images = Path(str(labels).replace("labels", "images"))
        return _set("yolo", labels, images, categories=names)
    if any(islice(path.glob("*.json"), 1)):
        return _set("question_bundle", path, _first(path / "images", path.parent / "images", path))
    return None


def _ade20k(path: Path) -> LabelledSetConfig:
    later = any(islice(path.glob("**/instance_*.png"), 1))
    return _set("ade20k_2021" if later else "ade20k_2016", path, path)


def _voc(path: Path) -> LabelledSetConfig:
    return _set("pascal_voc", path, path.parent / "JPEGImages")


def _cityscapes_images(path: Path) -> Path:
    parts = ["leftImg8bit" if part.startswith("gt") else part for part in path.parts]
    return _first(Path(*parts), path / "leftImg8bit", path)


def _first(*paths: Path) -> Path:
    """Return the first path that exists, else the last one."""
    return next((path for path in paths if path.exists()), paths[-1])
