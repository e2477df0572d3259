"""Tables of the report: a self-contained HTML page each."""

from collections.abc import Iterable
from html import escape
from typing import Final


def table_page(title: str, heading: str, head: str, lines: Iterable[str], notes: Iterable[str]) -> str:
    """Return a page with one table and notes below it.

    Parameters
    ----------
    title, heading
        Plain text.
    head, lines
        Rows of the table's head and body, as HTML.
    notes
        Plain text.
    """
    body = "\n".join(lines)
    below = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title, quote=False)}</title>
<style>
{CSS}</style>
</head>
<body>
<h1>{escape(heading, quote=False)}</h1>
<div class="scroll">
<table>
<thead>
{head}
</thead>
<tbody>
{body}
</tbody>
</table>
</div>
<ul>
{below}
</ul>
</body>
</html>
"""


CSS: Final = """\
body { font: 15px/1.45 "DejaVu Sans", Verdana, sans-serif; color: #1f2933; background: #fff; margin: 1.5rem; }
h1 { font-size: 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; }
thead th { font-weight: 600; font-size: .8rem; white-space: normal; vertical-align: bottom; max-width: 6rem; }
thead th[scope=colgroup] { text-align: center; font-size: .9rem; max-width: none; }
thead tr:last-child th { border-bottom: 2px solid #1f2933; }
tbody th { text-align: left; font-weight: 600; }
tbody tr { border-bottom: 1px solid #e4e8ec; }
tbody tr.whole { background: #f4f6f8; }
th.name { text-align: left; }
.thesis { color: #55606b; font-style: italic; }
.first { border-left: 2px solid #c5ccd3; }
ul { margin-top: 1.2rem; max-width: 60rem; padding-left: 1.2rem; font-size: .85rem; color: #45505b; }
sup { line-height: 0; }
"""
