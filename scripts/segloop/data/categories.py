"""Categories: tables of ids and names, and maps from one set's ids to another's.

Names of the ADE20K lists differ between its editions ("chest of drawer", "chest of drawers"), so that ids decide; names
are compared to notice a table that belongs to something else.
"""

import re
from pathlib import Path
from typing import Any

from segloop.data.skipped import SkipReport
from segloop.errors import SegloopError

_NAME = re.compile(r"\b(object\s+)?names?\b", re.IGNORECASE)


def read_category_table(path: Path) -> list[dict[str, Any]]:
    """Read ids and names from a table such as instanceInfo100_train.txt or objectInfo150.txt.

    The first column is the id; the name stands in the column whose heading says so, else in the second one, and may be
    padded with blanks. Columns are separated by one tab or more, and a line without a number at its beginning is a
    heading.

    Raises
    ------
    SegloopError
        If the file is missing, or holds no category or the same id twice.
    """
    column, table = 1, dict[int, dict[str, Any]]()
    for line in read_lines(path, "category table"):
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if len(cells) >= 2 and not cells[0].isdecimal() and not table:
            column = next((place for place, cell in enumerate(cells) if _NAME.search(cell)), column)
        if len(cells) < 2 or not cells[0].isdecimal():
            continue
        if int(cells[0]) in table:
            raise SegloopError(f"the category table {path} has the id {cells[0]} twice.")
        if len(cells) <= column:
            raise SegloopError(f"the category table {path} has no name for the id {cells[0]}.")
        table[int(cells[0])] = {"id": int(cells[0]), "name": cells[column]}
    if not table:
        raise SegloopError(f"the category table {path} holds no line of an id, a tab and a name.")
    if all(category["name"].isdecimal() for category in table.values()):
        # categoryMapping.txt lies beside the right table and maps ids to ids.
        raise SegloopError(f"the category table {path} holds numbers where names should be. Name a table of names.")
    return list(table.values())


def read_lines(path: Path, what: str) -> list[str]:
    """Return the lines of a small text file in UTF-8.

    Raises
    ------
    SegloopError
        If it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SegloopError(
            f"the {what} {path.absolute()} cannot be read ({error}). Check data_root and the path."
        ) from None


class CategoryMap:
    """Turns the category ids of one set into those of another.

    Attributes
    ----------
    categories
        The target's categories by id.
    """

    def __init__(self, targets: dict[int, int], categories: dict[int, dict[str, Any]]) -> None:
        self._targets = targets
        self.categories = categories

    def target(self, category: int) -> int | None:
        """Return the id that a category becomes, or None if it becomes none."""
        return self._targets.get(category)

    def check_names(self, path: Path, known: dict[int, dict[str, Any]], report: SkipReport) -> None:
        """Note each pair of categories that have no word of their names in common.

        Raises
        ------
        SegloopError
            If that is half of them or more: then the map or a table belongs to something else.
        """
        pairs = [(source, target) for source, target in self._targets.items() if source in known]
        differ = []
        for source, target in pairs:
            ours, theirs = known[source]["name"], self.categories[target]["name"]
            if not _words(ours) & _words(theirs):
                differ.append(f"{source} ({ours}) becomes {target} ({theirs})")
        if len(differ) >= max(2, len(pairs) / 2):
            raise SegloopError(
                f"{path} does not fit these categories: {'; '.join(differ[:3])} ... {len(differ)} of {len(pairs)} have "
                "other names. Check the columns of category_map and its table of categories."
            )
        for one in differ:
            report.note(path, "category", f"{one}: the names have no word in common")


def _words(name: str) -> set[str]:
    # "chest of drawers" and "chest of drawer" are one, "shops" and "shop" too.
    return {word.rstrip("s") for word in re.findall(r"[^\W_]+", name.lower())} - {"of", "the", "a"}


def read_category_map(path: Path, table: Path, source: int, target: int) -> CategoryMap:
    """Read a map of category ids such as categoryMapping.txt or mapFromADE.txt.

    Parameters
    ----------
    path
        Lines of ids, separated by blanks or tabs of any number; a line without a number at its beginning is a heading.
        Several ids may lead to one.
    table
        The target's ids and names.
    source, target
        The columns, counted from 1.

    Raises
    ------
    SegloopError
        If a file cannot be read, a line has too few columns, an id leads to two targets or to one without a name.
    """
    categories = {one["id"]: one for one in read_category_table(table)}
    targets: dict[int, int] = {}
    for number, line in enumerate(read_lines(path, "category map"), start=1):
        cells = line.split()
        if not cells or not cells[0].isdecimal():
            continue
        if len(cells) < max(source, target) or not all(cell.isdecimal() for cell in cells):
            raise SegloopError(f"{path}, line {number}: {line!r} has no ids in columns {source} and {target}.")
        ours, theirs = int(cells[source - 1]), int(cells[target - 1])
        if targets.setdefault(ours, theirs) != theirs:
            raise SegloopError(f"{path}, line {number}: the id {ours} leads to both {targets[ours]} and {theirs}.")
        if theirs not in categories:
            raise SegloopError(f"{path}, line {number}: leads to the id {theirs}, which {table} does not have.")
    if not targets:
        raise SegloopError(f"the category map {path} holds no line of ids.")
    return CategoryMap(targets, categories)
