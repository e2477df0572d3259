"""What documents name as proof exists: files, tests in them, pages and sections of pages."""

import re
from pathlib import Path

import pytest

PAGES = ("features.md", "security.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_file_and_test_that_proves_something_exists(repository: Path, name: str) -> None:
    page = (repository / "docs" / name).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|docs|scripts|benchmarks|config|envs)/[\w./-]+\.\w+)(?:::(\w+))?`", page)
    assert len(named) > 20
    for path, test in named:
        file = repository / path
        assert file.is_file(), f"{name} names {path}, which does not exist"
        if test:
            assert re.search(rf"^(async )?def {test}\(", file.read_text(encoding="utf-8"), re.MULTILINE), (
                f"{name} names {path}::{test}, which does not exist"
            )


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(repository: Path, name: str) -> None:
    page = repository / "docs" / name
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{name} links to {target}, which does not exist"


def test_every_yes_has_a_proof(repository: Path) -> None:
    page = (repository / "docs" / "features.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    marked = [row for row in rows if len(row) > 3 and row[-2] in ("y", "p")]
    assert len(marked) > 50
    for row in marked:
        assert "tests/" in row[-1] or "docs/" in row[-1] or "as above" in row[-1], f"no proof of {row[0]}"
