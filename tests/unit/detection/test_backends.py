import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pydantic
import pytest

from segloop.config import DetectorConfig
from segloop.detection import model_files
from segloop.detection.backends import backend_of
from segloop.detection.installed import require
from segloop.errors import SegloopError


def test_an_unknown_backend_is_named_with_where_it_stands() -> None:
    with pytest.raises(SegloopError, match=r"m/model\.json names the backend 'other'.*torchvision, detectron2"):
        backend_of("other", "m/model.json")


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is not None, reason="detectron2 is installed")
def test_a_missing_detectron2_is_one_message_with_the_ways_to_install_it() -> None:
    for use in (require, backend_of):
        with pytest.raises(SegloopError, match=r"conda-forge.*install\.html.*setuptools<81.*torchvision"):
            use("detectron2")
    require("torchvision")


def test_a_detectron2_that_does_not_work_is_told_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise ImportError('undefined symbol: abc')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "segloop.detection.detectron2_backend", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "detectron2", raising=False)
    with pytest.raises(SegloopError, match=r"cannot be imported \(undefined symbol: abc\).*install it again"):
        backend_of("detectron2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"configuration": "a.yaml"}, "belongs to detector.backend: detectron2"),
        ({"backend": "detectron2", "architecture": "tiny"}, "tiny is torchvision's"),
        ({"backend": "detectron2", "trainable_batch_norm": True}, "MODEL.RESNETS.NORM"),
    ],
)
def test_settings_that_do_not_fit_the_backend(settings: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        DetectorConfig.model_validate(settings)
    assert DetectorConfig(backend="detectron2", architecture="tiny", configuration="a.yaml").configuration == "a.yaml"


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_of_arrays_is_read(tmp_path: Path, protocol: int) -> None:
    content = {"model": OrderedDict(a=np.arange(6.0).reshape(2, 3), b=np.float32(2)), "__author__": "x"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    read = model_files.load_pickle(tmp_path / "a.pkl")
    assert np.array_equal(read["model"]["a"], content["model"]["a"])
    assert read["model"]["b"] == 2


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("touched"),)


def test_a_pickle_that_would_execute_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(SegloopError, match=r"evil\.pkl cannot be read \(it asks for pathlib"):
        model_files.load_pickle(tmp_path / "evil.pkl")
    assert not (tmp_path / "touched").exists()
    (tmp_path / "half.pkl").write_bytes(pickle.dumps({"a": np.zeros(1000)})[:300])
    with pytest.raises(SegloopError, match=r"half\.pkl cannot be read"):
        model_files.load_pickle(tmp_path / "half.pkl")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(SegloopError, match="no dictionary"):
        model_files.load_pickle(tmp_path / "list.pkl")
    with pytest.raises(SegloopError, match="do not exist"):
        model_files.load_pickle(tmp_path / "none.pkl")
