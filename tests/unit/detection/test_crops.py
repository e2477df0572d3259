import io
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from segloop.config import CropConfig
from segloop.data import masks
from segloop.data.masks import Rle
from segloop.detection.crops import CropNetwork, crop, network_sha256
from segloop.errors import SegloopError

CPU = torch.device("cpu")
SIZE = 8


class Means(nn.Module):
    """Mean of each colour, and a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) * self.scale


def plain(model: Path | str, **changes: object) -> CropConfig:
    values = {"model": str(model), "size": SIZE, "mean": (0, 0, 0), "deviation": (1, 1, 1), "context": 1.0}
    return CropConfig.model_validate(values | changes)


def picture() -> tuple[npt.NDArray[np.uint8], list[Rle]]:
    """Return a grey image with a red and a blue square, and the masks of these."""
    image = np.full((40, 60, 3), 100, np.uint8)
    image[4:12, 4:12], image[20:36, 40:56] = (255, 0, 0), (0, 0, 255)
    found = []
    for rows, columns in ((slice(4, 12), slice(4, 12)), (slice(20, 36), slice(40, 56))):
        mask = np.zeros((40, 60), np.bool_)
        mask[rows, columns] = True
        found.append(masks.encode(mask))
    return image, found


def exported(path: Path, batch: int | None = None) -> Path:
    example = torch.zeros((batch or 2, 3, SIZE, SIZE))
    shapes = None if batch else ({0: torch.export.Dim("n", min=1)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Means().eval(), (example,), dynamic_shapes=shapes), path)
    return path


def scripted(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Means().eval()).save(path)
    return path


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a module of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_networks.py").write_text(
        "import torch\n"
        "class Means(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(3))\n"
        "    def forward(self, x):\n"
        "        return x.mean(dim=(2, 3)) * self.scale\n"
        "class Whole(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x\n"
        "def number():\n"
        "    return 3\n"
    )
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return tmp_path


@pytest.mark.parametrize("kind", ["script", "exported", "exported for one", "function"])
def test_a_network_describes_what_lies_around_each_mask(kind: str, in_folder: Path) -> None:
    make: dict[str, Callable[[], Path | str]] = {
        "script": lambda: scripted(in_folder / "net.pt"),
        "exported": lambda: exported(in_folder / "net.pt2"),
        "exported for one": lambda: exported(in_folder / "net.pt2", batch=1),
        "function": lambda: "my_networks:Means",
    }
    network = CropNetwork(plain(make[kind]()), CPU)
    image, rles = picture()
    assert network.width == 3
    assert np.allclose(network.embed(image, rles), [[1, 0, 0], [0, 0, 1]], atol=1e-6)
    assert network.embed(image, []).shape == (0, 3)
    assert np.array_equal(network.embed(image, rles)[1:], network.embed(image, rles[1:]))


def test_weights_of_a_function_are_read(in_folder: Path) -> None:
    torch.save({"scale": torch.tensor([2.0, 2.0, 4.0])}, in_folder / "weights.pth")
    config = plain("my_networks:Means", weights="weights.pth")
    image, rles = picture()
    assert np.allclose(CropNetwork(config, CPU).embed(image, rles), [[2, 0, 0], [0, 0, 4]], atol=1e-6)
    assert network_sha256(config) is not None and network_sha256(plain("my_networks:Means")) is None
    torch.save({"other": torch.zeros(1)}, in_folder / "weights.pth")
    with pytest.raises(SegloopError, match=r"weights\.pth does not fit my_networks:Means"):
        CropNetwork(config, CPU)


def test_a_crop_has_its_surroundings_and_beyond_the_image_the_mean_colour() -> None:
    image, rles = picture()
    shown = crop(image, rles[0], masks.boxes(rles)[0], plain("x", context=2.0, size=16, mean=(0.2, 0.4, 0.6)))
    assert shown.shape == (16, 16, 3)
    assert (shown[6:10, 6:10] == (255, 0, 0)).all() and (shown[1:3, 1:3] == 100).all()
    corner = np.zeros((40, 60), np.bool_)
    corner[:4, :4] = True
    rle = masks.encode(corner)
    beyond = crop(image, rle, masks.boxes([rle])[0], plain("x", context=2.0, size=8, mean=(0.2, 0.4, 0.6)))
    assert (beyond[0, 0] == (51, 102, 153)).all() and (beyond[4, 4] == 100).all()
    # One pixel in the corner of a one-pixel image.
    tiny = masks.encode(np.ones((1, 1), np.bool_))
    assert crop(image[:1, :1], tiny, masks.boxes([tiny])[0], plain("x")).shape == (SIZE, SIZE, 3)


def test_what_does_not_belong_to_the_mask_can_be_painted_over() -> None:
    image, _ = picture()
    half = np.zeros((40, 60), np.bool_)
    half[4:12, 4:8] = True
    half[4, 11] = True
    rle = masks.encode(half)
    shown = crop(image, rle, masks.boxes([rle])[0], plain("x", masked=True, size=8))
    assert (shown[2:, :4] == (255, 0, 0)).all() and (shown[2:, 5:] == 0).all()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.made),)


def replaced(path: Path, ending: str, content: bytes) -> Path:
    """Write an exported network again with one member that is replaced, or added."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next((name for name in members if name.endswith(ending)), f"{path.stem}/{ending}")
    with zipfile.ZipFile(path, "w") as archive:
        for member, old in (members | {name: content}).items():
            archive.writestr(member, content if member == name else old)
    return path


def test_foreign_pickles_are_refused_before_they_run(tmp_path: Path) -> None:
    made = tmp_path / "executed"
    evil = io.BytesIO()
    torch.save(Evil(made), evil)
    (tmp_path / "whole.pt").write_bytes(evil.getvalue())
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(made)))
    torch.save(Means(), tmp_path / "module.pt")
    for name in ("whole.pt", "plain.pt", "module.pt"):
        with pytest.raises(SegloopError, match="is no TorchScript file"):
            CropNetwork(plain(tmp_path / name), CPU)
    inputs = replaced(exported(tmp_path / "inputs.pt2"), "sample_inputs/model.pt", evil.getvalue())
    with pytest.raises(SegloopError, match="holds more than tensors"):
        CropNetwork(plain(inputs), CPU)
    listed = b'{"config": {"scale": {"path_name": "weight_0", "use_pickle": true}}}'
    weights = replaced(exported(tmp_path / "weights.pt2"), "model_weights_config.json", listed)
    with pytest.raises(SegloopError, match="names pickles"):
        CropNetwork(plain(weights), CPU)
    compiled = replaced(exported(tmp_path / "compiled.pt2"), "data/aotinductor/model/run.so", b"")
    with pytest.raises(SegloopError, match=r"it holds data/aotinductor"):
        CropNetwork(plain(compiled), CPU)
    assert not made.exists()


def test_problems_are_told_to_a_person(in_folder: Path) -> None:
    (in_folder / "torn.pt2").write_bytes(b"PK")
    torch.save({"scale": torch.ones(3)}, in_folder / "weights.pth")
    wrong: list[tuple[str, dict[str, object], str]] = [
        ("gone.pt", {}, "gone.pt does not exist"),
        ("torn.pt2", {}, "is no file of torch.export"),
        ("weights.pth", {}, "is no TorchScript file"),
        ("my_networks:number", {}, "returned int, not a network"),
        ("my_networks:gone", {}, "cannot be called"),
        ("no_such_module:make", {}, "cannot be called"),
        ("my_networks:Whole", {}, "It has to return one row of floats"),
        (str(exported(in_folder / "net.pt2")), {"size": 16}, "failed on crops of shape"),
        (str(exported(in_folder / "other.pt2")), {"weights": "weights.pth"}, "Set weights: null"),
        ("my_networks:Means", {"weights": "gone.pth"}, "do not exist"),
    ]
    for model, changes, message in wrong:
        with pytest.raises(SegloopError, match=message):
            CropNetwork(plain(model, **changes), CPU)
    with pytest.raises(SegloopError, match=r"gone\.pt does not exist"):
        network_sha256(plain("gone.pt"))
