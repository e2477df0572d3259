"""The code that a function reaches: what a measured number depends on, and nothing else.

Definitions are followed by their names, from one module into the next. Comments, docstrings and the layout of the code
do not count, and neither does a change of what is not reached: a page of the labelling tool makes no measurement of a
policy older.
"""

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Definition = tuple[str, str]
"""A module and a name in it."""


def code_of(roots: Sequence[Definition], packages: Sequence[str], without: Sequence[Definition] = ()) -> str:
    """Return the code of all definitions that some definitions reach (see `reached`), without words for people."""
    found = reached(roots, packages, without)
    return "".join(f"# {module}:{name}\n{_read(module).definitions[name]}\n" for module, name in found)


def reached(
    roots: Sequence[Definition], packages: Sequence[str], without: Sequence[Definition] = ()
) -> list[Definition]:
    """Return the definitions that some definitions reach, those themselves included, in alphabetical order.

    Parameters
    ----------
    packages
        Only code in these modules, and in modules below them, is followed.
    without
        Definitions that are not followed either.
    """
    open_, seen = list(roots), set(without)
    found: list[Definition] = []
    while open_:
        here = open_.pop()
        module, name = here
        if here in seen or not any(module == one or module.startswith(f"{one}.") for one in packages):
            continue
        seen.add(here)
        read = _read(module)
        if name in read.imported:
            open_.append(read.imported[name])
        elif name in read.definitions:
            found.append(here)
            open_ += [(module, other) for other in read.names[name]]
    return sorted(found)


@dataclass(frozen=True)
class _Module:
    definitions: dict[str, str]
    """Top-level names and their code."""
    names: dict[str, set[str]]
    """What names the code of each uses."""
    imported: dict[str, Definition]


@cache
def _read(module: str) -> _Module:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, module
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    read = _Module({}, {}, {})
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            read.imported.update((one.asname or one.name, (node.module, one.name)) for one in node.names)
    for node in tree.body:
        for name in _defined(node):
            bare = _without_docstrings(node)
            read.definitions[name] = ast.unparse(bare)
            read.names[name] = {one.id for one in ast.walk(bare) if isinstance(one, ast.Name)} - {name}
    return read


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))


def _without_docstrings(node: ast.stmt) -> ast.stmt:
    """Drop every string that stands alone: docstrings of functions, classes and attributes."""
    for one in ast.walk(node):
        body = getattr(one, "body", None)
        if isinstance(body, list):
            kept = [line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]
            one.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return node
