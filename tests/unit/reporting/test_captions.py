from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

CAPTIONS = sorted((Path(__file__).parents[3] / "rules" / "report").glob("*.rst"))


def test_every_figure_has_a_caption() -> None:
    names = {path.stem for path in CAPTIONS}
    assert {"table31", "ap", "questions", "dataset_sizes", "neighbours", "gallery", "separability"} <= names


@pytest.mark.parametrize("caption", CAPTIONS, ids=lambda path: path.stem)
def test_captions_are_valid_and_say_what_to_conclude(caption: Path) -> None:
    # As Snakemake does it: Jinja first, then reStructuredText; here a warning is an error.
    job = SimpleNamespace(wildcards=SimpleNamespace(iteration="3"))
    text = Environment(undefined=StrictUndefined).from_string(caption.read_text(encoding="utf-8")).render(snakemake=job)
    html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["body"]
    assert "<strong>What to conclude.</strong>" in html
    if "wildcards" in caption.read_text(encoding="utf-8"):
        assert "iteration 3" in " ".join(html.split()).lower()
