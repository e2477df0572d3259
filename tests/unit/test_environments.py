"""What is installed: the pins, the ranges, the environment of a cluster and what the code imports belong together."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLUGINS = {"snakemake-executor-plugin-slurm"}
"""What profiles name and no module imports."""
USED = {"python-multipart", "vl-convert-python"}
"""What another library imports when it is asked to: starlette, to read uploads; altair, for pages that stand alone."""


def pins(repository: Path, name: str) -> dict[str, str]:
    """Return distribution and version of each line of a requirements file."""
    lines = (repository / "envs" / name).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = {canonicalize_name(each.name): str(each.specifier) for each in requirements}
    assert all(re.fullmatch(r"==[\w.!+]+", pin) for pin in found.values()), "a pin is one exact version"
    return {each: pin.removeprefix("==") for each, pin in found.items()}


def ranges(repository: Path) -> dict[str, Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return {canonicalize_name(each.name): each for each in map(Requirement, project["dependencies"])}


def extras(repository: Path) -> set[str]:
    """Return what only some people need, whose import therefore stands inside a function."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return {
        canonicalize_name(Requirement(one).name) for some in project["optional-dependencies"].values() for one in some
    }


def imported(*folders: Path) -> set[str]:
    """Return the distributions that files import, those of functions included."""
    modules: set[str] = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module.partition(".")[0])
    known = metadata.packages_distributions()
    foreign = modules - set(sys.stdlib_module_names) - {"segloop", "labelmelite"}
    return {canonicalize_name(known[module][0]) for module in foreign if module in known}


def test_every_range_is_met_by_its_pin(repository: Path) -> None:
    pinned = pins(repository, "requirements.txt")
    for name, requirement in ranges(repository).items():
        assert name in pinned, f"{name} of pyproject.toml has no pin"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} is not met by {pinned[name]}"


def test_what_is_imported_is_named_and_what_is_named_is_imported(repository: Path) -> None:
    named = set(ranges(repository)) - PLUGINS - USED - {"snakemake"}
    assert imported(repository / "scripts") == named | extras(repository)


def test_the_plugins_of_the_profiles_are_named(repository: Path) -> None:
    executors = {
        f"snakemake-executor-plugin-{executor}"
        for path in (repository / "profiles").glob("*/config.yaml")
        if (executor := yaml.safe_load(path.read_text()).get("executor"))
    }
    assert executors == PLUGINS
    assert set(ranges(repository)) >= PLUGINS


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-readers.txt"])
def test_pins_are_what_these_tests_run_with(repository: Path, name: str) -> None:
    wrong = {}
    for distribution, version in pins(repository, name).items():
        try:
            found = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        if found != version:
            wrong[distribution] = (version, found)
    assert wrong == {}, "run `make setup`"


def test_conda_environments_hold_the_pins(repository: Path) -> None:
    files = list((repository / "envs").glob("*.yaml"))
    assert files
    for path in files:
        environment = yaml.safe_load(path.read_text())
        (python,) = (line for line in environment["dependencies"] if str(line).startswith("python="))
        required = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"]
        assert Requirement(f"python{required}").specifier.contains(python.partition("=")[2] + ".0")
        (by_pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
        assert by_pip == ["-r requirements.txt"], "one list of pins for both ways"
    rules = "".join(path.read_text() for path in (repository / "rules").glob("*.smk"))
    assert set(re.findall(r'"\.\./envs/([^"]+)"', rules)) == {path.name for path in files}
