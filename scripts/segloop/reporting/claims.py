"""The page of certificates: what audits showed of each accepted set, and what that leaves after annotators' errors."""

from html import escape
from pathlib import Path
from typing import Final

from segloop.annotation.certificates import Certificate, read_certificates
from segloop.files import atomic_file
from segloop.reporting.summaries import percent, read_run
from segloop.reporting.table_page import table_page

_HEADS: Final = (
    "iteration", "set", "masks", "confirmed before", "questions", "not good", "wanted", "at least", "claimed",
    "annotators err", "delta", "shown",
)  # fmt: skip

_NOTES: Final = (
    "At least: with probability 1 - delta over the draw of the questions, this share of the set is good (exact for a "
    "finite set, sampling without replacement).",
    "Claimed: what is left of it after the rate at which annotators say yes about bad masks, measured by gold "
    "questions.",
    "A set that was not shown to reach what was wanted is a valid outcome: nothing is claimed of it, and with "
    "annotation.audit.enforce only its masks that were confirmed one by one are kept.",
    "The default policy audits sets within each other one after another: of those of an iteration the last one that "
    "was shown is what is claimed, and what was asked about a smaller set counts for the larger ones too.",
    "Questions by which a set was chosen never count in its audit.",
)


def tabulate_certificates(*, summary: Path, certificates: list[Path], html: Path) -> None:
    """Write all audits of a run as a self-contained HTML page.

    Parameters
    ----------
    summary
        `results/summary.json`.
    certificates
        certificates.json of the iterations 1..last.

    Raises
    ------
    SegloopError
        If a file is missing or damaged.
    """
    run = read_run(summary)
    rows = [(number, one) for number, path in enumerate(certificates, start=1) for one in read_certificates(path)]
    lines = [_line(number, one) for number, one in rows]
    if not rows:
        nothing = "This run has no audit: nothing is claimed of its masks."
        lines = [f'<tr><th scope="row" colspan="{len(_HEADS)}">{nothing}</th></tr>']
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in _HEADS)
    precision = [
        f"Iteration {row['iteration']}: {percent(row['precision']):.1f} % of the accepted masks are good by the truth "
        "of the pool, which no audit saw."
        for row in run.iterations
        if row.get("precision") is not None
    ]
    page = table_page("Certificates", "Certificates and their audits", f"<tr>{head}</tr>", lines, (*_NOTES, *precision))
    with atomic_file(html) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _line(number: int, one: Certificate) -> str:
    about = "all accepted" if one.category is None else f"category {one.category}"
    cells = (
        f"{escape(about)} ({one.kind})", f"{one.size:,}", f"{one.known_good:,}", f"{one.asked:,}", f"{one.bad:,}",
        f"{one.target:.3f}", f"{one.lower:.3f}", f"{one.claimed:.3f}", f"{one.false_yes:.3f}", f"{one.delta:.4f}",
        "✓ yes" if one.passed else "✗ no",
    )  # fmt: skip
    return f'<tr><th scope="row">{number}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
