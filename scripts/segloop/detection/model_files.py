"""The model directory: weights.pt, model.json, losses.csv and skipped.json; nothing in it is executable."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segloop import integrity
from segloop.config import DetectorConfig
from segloop.errors import SegloopError
from segloop.files import read_json

WEIGHTS, DESCRIPTION, LOSSES, SKIPPED = "weights.pt", "model.json", "losses.csv", "skipped.json"
SCHEMA_VERSION = 1


def embedding_parts(detector: DetectorConfig) -> dict[str, int]:
    """Return name and width of what is joined to a detector's embedding, in order."""
    parts = ("box_head", "mask_iou_head") if detector.mask_iou_head else ("box_head",)
    return dict.fromkeys(parts, detector.embedding_dim)


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hash the names, types, shapes and values of tensors; the container they are saved in plays no part."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def read_description(model: Path) -> dict[str, Any]:
    """Read model.json of a model directory.

    Raises
    ------
    SegloopError
        If it is missing or was written by another version.
    """
    path = model / DESCRIPTION
    if not path.exists():
        raise SegloopError(f"{path} does not exist: {model} is not a complete model. Train it again.")
    description: dict[str, Any] = read_json(path)
    if description.get("schema_version") != SCHEMA_VERSION:
        raise SegloopError(
            f"{path} has schema version {description.get('schema_version')}, this version of segloop reads "
            f"{SCHEMA_VERSION}. Train the model again."
        )
    return description


def read_weights(model: Path) -> dict[str, torch.Tensor]:
    """Read weights.pt of a model directory and compare it with the hash that model.json holds.

    Raises
    ------
    SegloopError
        If one of them is missing, damaged, or of another model.
    """
    integrity.check(model / WEIGHTS)
    state = load_state(model / WEIGHTS)
    if weights_sha256(state) != read_description(model)["weights_sha256"]:
        raise SegloopError(
            f"{model / WEIGHTS} is damaged: its weights have not the SHA-256 that {DESCRIPTION} holds. Delete {model} "
            "and run again, which trains the model anew."
        )
    return state


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of named tensors without executing anything in it.

    A nested dictionary, as training programs save it under `model` or `state_dict`, is unwrapped.

    Raises
    ------
    SegloopError
        If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.exists():
        raise SegloopError(f"the weights {path.absolute()} do not exist. Check the path in the configuration.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its unpickler raises: many kinds, all meaning the same
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SegloopError(f"the weights {path} cannot be read ({reason}). Copy or train them again.") from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SegloopError(f"the weights {path} are not a state dictionary (names and tensors)")
    return dict(state)


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, numbers, texts and their containers; whatever else a pickle could execute is refused."""

    ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy._core.numeric", "_frombuffer"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name of the pickle stands for."""
        # What NumPy called numpy.core before version 2.
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def load_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of NumPy arrays, as detectron2's model zoo has them, without executing anything in it.

    Raises
    ------
    SegloopError
        If the file is missing, damaged, no dictionary, or holds anything but arrays, numbers, texts and containers.
    """
    if not path.exists():
        raise SegloopError(f"the weights {path.absolute()} do not exist. Check the path in the configuration.")
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SegloopError(f"the weights {path} cannot be read ({reason}). Copy them again.") from None
    if not isinstance(content, dict):
        raise SegloopError(f"the weights {path} are no dictionary of names and arrays")
    return content
