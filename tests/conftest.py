"""What all tests share: when a missing program skips a test or fails it, and one undisturbed run of the tiny loop."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .loops import Loop, configuration

REPOSITORY = Path(__file__).resolve().parents[1]


def require_program(name: str) -> str:
    """Return the path of a program; without it skip the test, or fail where SEGLOOP_REQUIRE_ALL is set (CI)."""
    path = shutil.which(name)
    if path is None and os.environ.get("SEGLOOP_REQUIRE_ALL"):
        pytest.fail(f"{name} is not installed, and SEGLOOP_REQUIRE_ALL asks for every test")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {name})")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    return require_program("chromium")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    folder = tmp_path_factory.mktemp("undisturbed")
    loop = Loop(folder / "run", configuration(folder / "tiny.yaml"))
    loop.directory.mkdir()
    loop.run()
    return loop


@pytest.fixture
def new_loop(tmp_path: Path) -> Callable[..., Loop]:
    """Return a function that makes an empty run directory with a changed configuration."""

    def make(name: str = "run", **changes: object) -> Loop:
        (tmp_path / name).mkdir()
        return Loop(tmp_path / name, configuration(tmp_path / f"{name}.yaml", **changes))

    return make
