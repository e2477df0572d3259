"""What tests of readers share: the sample data beside the project, and one way of reading any format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segloop.config import LabelledSetConfig
from segloop.data import masks
from segloop.data.formats import open_dataset
from segloop.data.labelled import whole
from segloop.data.skipped import SkipReport

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "formats"

Read = Callable[..., tuple[dict[str, Any], SkipReport]]


@pytest.fixture
def sample() -> Callable[[str], Path]:
    """Return a function that gives the path of a sample, or skips the test where the samples are not."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"the sample data beside the project has no {name}")
        return path

    return find


@pytest.fixture
def read_set() -> Read:
    """Return a function that reads a labelled set whole; it takes the root and the keys of its configuration."""

    def read(root: Path, options: dict[str, Any] | None = None, **keys: Any) -> tuple[dict[str, Any], SkipReport]:
        report = SkipReport(None, 1.0)
        config = LabelledSetConfig.model_validate(keys)
        dataset = open_dataset(config, data_root=root, report=report, **(options or {}))
        return whole(dataset), report

    return read


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Return a function that writes a plain image of a size (width, height) and returns its path."""

    def write(path: Path, width: int = 8, height: int = 6) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (90, 120, 150)).save(path)
        return path

    return write


@pytest.fixture
def png() -> Callable[[Path, Any], Path]:
    """Return a function that writes an array as PNG, every number as it is, and returns its path."""

    def write(path: Path, pixels: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(path)
        return path

    return write


@pytest.fixture
def write_json_file() -> Callable[[Path, Any], Path]:
    """Return a function that writes JSON as Python does, NaN included, and returns its path."""

    def write(path: Path, value: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return write


@pytest.fixture
def shown() -> Callable[[dict[str, Any]], npt.NDArray[np.bool_]]:
    """Return a function that decodes the mask of an annotation."""
    return lambda one: masks.decode(masks.from_json(one["segmentation"]))


@pytest.fixture
def said() -> Callable[[SkipReport], list[str]]:
    """Return a function that lists what a report says was skipped, `record: reason` each."""
    return lambda report: [f"{one['record']}: {one['reason']}" for one in report.skipped]


@pytest.fixture
def noted() -> Callable[[SkipReport], list[str]]:
    """Return a function that lists what a report notes, `record: reason` each."""
    return lambda report: [f"{one['record']}: {one['reason']}" for one in report.notes]
