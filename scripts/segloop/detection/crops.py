"""The embedding `crop`: a network of the user's own on the part of an image around each mask.

A file of a network is data here, never a program: TorchScript and torch.export describe computations, and what torch
would unpickle beyond tensors is refused before torch reads it. Who wants to run a program of their own names a function
that can be imported.
"""

import importlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from segloop.config import CropConfig
from segloop.data import masks
from segloop.data.masks import Rle
from segloop.detection import model_files
from segloop.detection.segmenter import ImageArray
from segloop.errors import SegloopError
from segloop.files import sha256_file

NAME: Final = "crop"
BATCH: Final = 32
"""At most so many crops go through the network at once."""


class CropNetwork:
    """The user's network.

    Parameters
    ----------
    config
        Where it is and what it takes.
    device
        Where it runs.

    Raises
    ------
    SegloopError
        If it cannot be read, would execute something, or does not turn crops into one row of floats each.
    """

    def __init__(self, config: CropConfig, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._network = _load(config, device)
        self._mean = torch.tensor(config.mean, device=device).reshape(3, 1, 1)
        self._deviation = torch.tensor(config.deviation, device=device).reshape(3, 1, 1)
        self._at_once = BATCH
        self.width = self._probe()

    def _probe(self) -> int:
        """Return the width of the network's rows; find out whether it takes several crops at once."""
        blank = np.zeros((self._config.size, self._config.size, 3), np.uint8)
        try:
            self._run([blank] * 3)
        except SegloopError:
            # An exported network may be fixed to one crop.
            self._at_once = 1
        return int(self._run([blank]).shape[1])

    def embed(self, image: ImageArray, rles: list[Rle]) -> npt.NDArray[np.float32]:
        """Describe masks.

        Parameters
        ----------
        image
            RGB, uint8[H, W, 3].
        rles
            Masks of the image's size, none of them empty.

        Returns
        -------
        float32[n, width].
        """
        rows = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(rles), self._at_once):
            some = rles[start : start + self._at_once]
            boxes = masks.boxes(some)
            crops = [crop(image, rle, box, self._config) for rle, box in zip(some, boxes, strict=True)]
            rows.append(self._run(crops))
        return np.concatenate(rows)

    def _run(self, crops: list[ImageArray]) -> npt.NDArray[np.float32]:
        pixels = torch.from_numpy(np.stack(crops)).to(self._device).permute(0, 3, 1, 2).float()
        where = f"prediction.crop.model {self._config.model}"
        try:
            # Optimisations of TorchScript depend on how often a network was called, and results on them.
            with torch.inference_mode(), torch.autocast(self._device.type, enabled=False), _unoptimised():
                rows = self._network((pixels / 255 - self._mean) / self._deviation)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a network of somebody else's raises anything
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise SegloopError(f"{where} failed on crops of shape {tuple(pixels.shape)}: {reason}") from error
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(crops) or not rows.is_floating_point():
            found = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise SegloopError(
                f"{where} made {found} of {len(crops)} crops. It has to return one row of floats for each: leave out "
                "its classifier, and flatten what is in front of it."
            )
        return rows.float().cpu().numpy()


def crop(image: ImageArray, rle: Rle, box: npt.NDArray[np.floating[Any]], config: CropConfig) -> ImageArray:
    """Cut the square around a mask out of an image and scale it.

    Parameters
    ----------
    image
        RGB, uint8[H, W, 3].
    rle
        The mask.
    box
        Its x, y, width and height in pixels.
    config
        How large the square is, and what becomes of what does not belong to the mask. Beyond the image it has the mean
        colour.

    Returns
    -------
    uint8[size, size, 3].
    """
    height, width = image.shape[:2]
    left, top, wide, tall = (float(value) for value in box)
    side = max(1, round(max(wide, tall) * config.context))
    x0, y0 = round(left + wide / 2 - side / 2), round(top + tall / 2 - side / 2)
    colour = np.clip(np.round(np.array(config.mean) * 255), 0, 255).astype(np.uint8)
    square: ImageArray = np.empty((side, side, 3), np.uint8)
    square[:] = colour
    rows, columns = slice(max(y0, 0), min(y0 + side, height)), slice(max(x0, 0), min(x0 + side, width))
    seen = image[rows, columns]
    if config.masked:
        seen = np.where(masks.decode(rle)[rows, columns, None].astype(bool), seen, colour)
    square[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = seen
    scaled = Image.fromarray(square).resize((config.size, config.size), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def network_sha256(config: CropConfig) -> str | None:
    """Return the hash of the file that says what the network computes; None for a function without weights."""
    path = config.weights if _is_function(config.model) else config.model
    if path is None:
        return None
    if not Path(path).is_file():
        raise SegloopError(f"prediction.crop: {Path(path).absolute()} does not exist. Check the path.")
    return sha256_file(Path(path))


def _is_function(model: str) -> bool:
    return ":" in model and not Path(model).is_file()


def _load(config: CropConfig, device: torch.device) -> Callable[[Tensor], Any]:
    if _is_function(config.model):
        return _call(config, device)
    path = Path(config.model)
    if config.weights is not None:
        raise SegloopError(
            "prediction.crop.weights belongs to a model of the form package.module:function; "
            f"{path} holds its weights. Set weights: null."
        )
    if not path.is_file():
        raise SegloopError(
            f"prediction.crop.model: {path.absolute()} does not exist. Name a TorchScript file, a .pt2 file of "
            "torch.export, or package.module:function."
        )
    return _load_exported(path, device) if path.suffix == ".pt2" else _load_script(path, device)


def _load_script(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    try:
        with warnings.catch_warnings():
            # Torch would rather have files of torch.export; these are still what most people have.
            warnings.simplefilter("ignore")
            network: nn.Module = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a file that is none makes of it
        raise SegloopError(
            f"prediction.crop.model {path} is no TorchScript file ({_reason(error)}). A network that was saved with "
            "torch.save is a pickle, which can execute anything, and is not read: export it (torch.export.save, or "
            "torch.jit.trace(...).save), or set package.module:function and its weights."
        ) from None
    return network


def _load_exported(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    _refuse_pickles(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = torch.export.load(path).module().to(device)
    except Exception as error:  # as above
        raise SegloopError(
            f"prediction.crop.model {path} cannot be read ({_reason(error)}). Export it again, with this version of "
            f"PyTorch ({torch.__version__})."
        ) from None
    return network


def _refuse_pickles(path: Path) -> None:
    """Refuse an exported network of which torch would unpickle more than tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _executable_part(archive)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SegloopError(f"prediction.crop.model {path} is no file of torch.export ({_reason(error)})") from None
    if problem:
        raise SegloopError(
            f"prediction.crop.model {path} is not read, because it could execute anything: {problem}. Export a network "
            "of plain tensors and operations, or set package.module:function and its weights."
        )


def _executable_part(archive: zipfile.ZipFile) -> str | None:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "archive_format" not in names or archive.read(names["archive_format"]) != b"pt2":
        return "it has not the form of this version of torch.export"
    for inner, name in names.items():
        if inner.endswith("_config.json") and inner.startswith("data/"):
            entries = json.loads(archive.read(name)).get("config", {})
            if any(one.get("use_pickle") for one in entries.values()):
                return f"{inner} names pickles"
        elif inner.startswith("data/sample_inputs/"):
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except (pickle.UnpicklingError, RuntimeError):
                return f"{inner} holds more than tensors"
        elif not inner.startswith(("data/weights/", "data/constants/", "models/", "archive_", "byteorder", ".data/")):
            return f"it holds {inner}"
    return None


def _call(config: CropConfig, device: torch.device) -> Callable[[Tensor], Any]:
    module_name, _, function = config.model.partition(":")
    try:
        with _importing_from_here():
            made = getattr(importlib.import_module(module_name), function)()
    except Exception as error:  # the user's own code raises anything
        raise SegloopError(
            f"prediction.crop.model {config.model} cannot be called ({type(error).__name__}: {_reason(error)}). Its "
            f"module has to lie in {Path.cwd()} or to be installed, and the function takes no argument."
        ) from error
    if not isinstance(made, nn.Module):
        raise SegloopError(
            f"prediction.crop.model {config.model} returned {type(made).__name__}, not a network (torch.nn.Module)"
        )
    if config.weights is not None:
        try:
            made.load_state_dict(model_files.load_state(Path(config.weights)))
        except RuntimeError as error:
            raise SegloopError(
                f"prediction.crop.weights {config.weights} does not fit {config.model} ({_reason(error)})"
            ) from None
    return made.to(device).eval()


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Find modules of the run directory, too."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def _unoptimised() -> Iterator[None]:
    jit: Any = torch.jit
    with jit.optimized_execution(False):
        yield


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
