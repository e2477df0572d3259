"""What all tests share: when a missing program skips a test, and when it fails it."""

import os
import shutil
from pathlib import Path

import pytest

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
