from pathlib import Path

from segloop.reporting.style import new_figure, save, style


def test_names_with_dollar_signs_are_names(tmp_path: Path) -> None:
    with style():
        figure = new_figure(3, 2)
        figure.add_subplot(title="$\\frac$").set_xlabel("US$ 5 bill, US$ 10 bill")
        save(figure, tmp_path / "a.svg", tmp_path / "a.png")
    assert (tmp_path / "a.svg").stat().st_size and (tmp_path / "a.png").stat().st_size
