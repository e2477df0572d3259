from segloop.reporting.table_page import table_page


def test_a_page_holds_its_table_and_escapes_plain_text() -> None:
    page = table_page("A < B", "C & D", "<tr><th>x</th></tr>", ["<tr><td>1</td></tr>", "<tr><td>2</td></tr>"], ["<e>"])
    assert "<title>A &lt; B</title>" in page and "<h1>C &amp; D</h1>" in page
    assert "<thead>\n<tr><th>x</th></tr>\n</thead>\n<tbody>\n<tr><td>1</td></tr>\n<tr><td>2</td></tr>\n</tbody>" in page
    assert "<li>&lt;e&gt;</li>" in page


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = table_page("A", "A", "", [], [])
    assert "http" not in page and "src=" not in page and "<style>\nbody {" in page
