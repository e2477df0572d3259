"""Whether the library of a detector is there; asked before any job, without importing torch."""

import importlib.util

from segloop.errors import SegloopError


def require(name: str) -> None:
    """Raise a SegloopError with the ways to install it if a backend's library is missing."""
    if name == "detectron2" and importlib.util.find_spec("detectron2") is None:
        raise SegloopError(
            "detector.backend: detectron2, but detectron2 is not installed in this environment. PyPI does not "
            "have it: install it from conda-forge (`conda install -c conda-forge detectron2`) or after its own guide "
            "(https://detectron2.readthedocs.io/tutorials/install.html; building it needs `setuptools<81`, a C++ "
            "compiler and `pip install --no-build-isolation`). Or set detector.backend: torchvision."
        )
