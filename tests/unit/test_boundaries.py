"""What the sources may not do, whatever a later change does: docs/security.md names these."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

Call = tuple[str, str, ast.Call]


@pytest.fixture(scope="module")
def calls(repository: Path) -> list[Call]:
    """Every call in the packages: where it stands, the dotted name that is called, and the call."""
    return list(_calls(repository / "scripts"))


def _calls(folder: Path) -> Iterator[Call]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.name}:{node.lineno}", ast.unparse(node.func), node


def _word(call: ast.Call, name: str) -> object:
    return next(
        (one.value.value for one in call.keywords if one.arg == name and isinstance(one.value, ast.Constant)), None
    )


def test_torch_unpickles_tensors_alone(calls: list[Call]) -> None:
    found = [(where, call) for where, name, call in calls if name == "torch.load"]
    assert len(found) > 3
    assert [where for where, call in found if _word(call, "weights_only") is not True] == []


def test_numpy_and_yaml_execute_nothing(calls: list[Call]) -> None:
    arrays = [(where, call) for where, name, call in calls if name == "np.load"]
    assert len(arrays) > 3
    assert [where for where, call in arrays if _word(call, "allow_pickle") is not False] == []
    # YAML is read in one place, which counts what aliases stand for.
    readers = [where for where, name, _ in calls if name.startswith("yaml.") and "load" in name]
    assert len(readers) == 1 and readers[0].startswith("files.py:")


def test_no_shell_and_no_code_from_text(calls: list[Call]) -> None:
    assert [where for where, name, _ in calls if name in ("eval", "exec", "os.system", "os.popen", "compile")] == []
    assert [where for where, name, call in calls if name.startswith("subprocess.") and _word(call, "shell")] == []
    pickles = {name for _, name, _ in calls if name.startswith(("pickle.", "cloudpickle.")) or name == "pickle_load"}
    # Of submitit's own jobs, see docs/security.md; the rest only names an error.
    assert pickles <= {"pickle_load", "pickle.UnpicklingError"}
