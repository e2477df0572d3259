"""Tables of replays, as Markdown that is also laid out for a terminal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np

from segloop.reporting.summaries import RunSummary
from segloop.reporting.table31 import Row, table_rows
from segloop.simulation.replay import Result

PRECISIONS: Final = (0.8, 0.9)
RECALLS: Final = (0.25, 0.5, 0.75)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table whose columns are aligned: words to the left, the first of them, and numbers to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return [f"| {' | '.join(line)} |" for line in padded]


def grouped(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the replays of each policy with each of its settings, by a label that says where settings differ."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_label(result, results), []).append(result)
    return groups


def _label(result: Result, among: Sequence[Result]) -> str:
    others = [other.settings for other in among if other.policy == result.policy]
    words = [
        f"{key} {value}"
        for key, value in sorted(result.settings.items())
        if any(settings.get(key) != value for settings in others)
    ]
    return ", ".join([result.policy, *words])


# --- what each replay gave --------------------------------------------------------------------------------------------


def outcomes(results: Sequence[Result]) -> list[str]:
    """Return what each policy gave: the mean over the seeds, and the range where there are several."""
    header = ["policy", "seeds", "questions", "masks per question", "precision", "recall", "certified"]
    rows = [
        [
            label,
            f"{len(group)}",
            _spread(group, lambda one: one.questions, ",.0f"),
            _spread(group, lambda one: one.masks_per_question, ".2f"),
            _spread(group, lambda one: one.precision, ".3f"),
            _spread(group, lambda one: one.recall, ".3f"),
            certified_words([one.certified for one in group]),
        ]
        for label, group in grouped(results).items()
    ]
    return markdown(header, rows)


def _spread(group: Sequence[Result], value: Callable[[Result], float | None], form: str) -> str:
    return spread_words([value(one) for one in group], form)


def spread_words(values: Sequence[float | None], form: str) -> str:
    """Return mean and range of the values that are known, as text."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = format(sum(known) / len(known), form)
    return mean if len(known) == 1 else f"{mean} ({min(known):{form}} to {max(known):{form}})"


def certified_words(values: Sequence[float | None]) -> str:
    """Return the least precision that was certified and by how many of the seeds, as text."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    # Rounded down: a bound may not become larger on paper. The rest is for 0.8 * 1000 and its like.
    least = np.floor(min(known) * 1000 + 1e-6) / 1000
    return f"≥ {least:.3f}" + (f" ({len(known)} of {len(values)})" if len(values) > 1 else "")


# --- masks per question at a precision and a recall -------------------------------------------------------------------


def yields(results: Sequence[Result], *, certified: bool) -> list[str]:
    """Return masks per question at each precision and recall, the best of a policy's settings.

    Parameters
    ----------
    certified
        Whether the precision has to be shown (by a certificate, or by asking each accepted mask), or is what the truth
        says in hindsight, wherever along its course the policy would best have been stopped.
    """
    sign = "certified" if certified else "realised"
    targets = [(precision, recall) for precision in PRECISIONS for recall in RECALLS]
    header = ["policy", *(f"{sign} {precision:g}, recall {recall:g}" for precision, recall in targets)]
    by_policy: dict[str, list[list[Result]]] = {}
    for group in grouped(results).values():
        by_policy.setdefault(group[0].policy, []).append(group)
    rows = []
    for policy, groups in by_policy.items():
        cells = [_best(groups, precision, recall, certified) for precision, recall in targets]
        if any(cell != "-" for cell in cells):
            rows.append([policy, *cells])
    return markdown(header, rows) if rows else [f"No policy reached a recall of {RECALLS[0]:g} with {sign} precision."]


def _best(groups: Sequence[Sequence[Result]], precision: float, recall: float, certified: bool) -> str:
    """Return the best mean over the seeds of any setting that reaches the target with at least half of them."""
    best, words = -1.0, "-"
    for group in groups:
        found = [masks_per_question_at(one, precision, recall, certified=certified) for one in group]
        reached = sum(value is not None for value in found)
        if 2 * reached < len(found):
            continue
        # A seed that falls short of the target counts with the masks that were confirmed one by one.
        values = [_confirmed(one) if value is None else value for one, value in zip(group, found, strict=True)]
        mean = sum(values) / len(values)
        if mean > best:
            short = "" if reached == len(found) else f" ({reached} of {len(found)})"
            best, words = mean, ("free" if np.isinf(mean) else f"{mean:.2f}") + short
    return words


def _confirmed(one: Result) -> float:
    return one.confirmed / one.questions if one.questions else 0.0


def masks_per_question_at(one: Result, precision: float, recall: float, *, certified: bool) -> float | None:
    """Return the most masks per question that a replay reached with a precision and a recall; None if it did not.

    Infinite where nobody had to be asked.
    """
    curve = one.curve
    if one.good == 0:
        return None
    accepted = np.maximum(curve.accepted, 1)
    enough = curve.correct >= recall * one.good
    if certified:
        enough &= (curve.confirmed == curve.accepted) & (curve.correct >= precision * accepted)
    else:
        enough &= (curve.correct >= precision * accepted) & (curve.accepted > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (curve.correct / curve.questions)[enough & (curve.correct > 0)].tolist()
    if certified and one.certified is not None and one.certified >= precision and one.correct >= recall * one.good:
        values.append(one.correct / one.questions if one.questions else np.inf)
    return float(max(values)) if values else None


NOTES: Final = (
    "Questions are all answers, those of pilots and audits included; masks are accepted masks that are good.",
    "Certified: the lower bound that audits gave for the whole accepted set, the least of the seeds, and how many",
    "seeds have one. Masks per question at a precision and a recall: the best of the settings that were tried, mean",
    "over the seeds, if at least half of them reach it; a seed that does not counts with the masks that were confirmed",
    "one by one. Asking every accepted mask counts as certified. Realised: known only because the truth is, and",
    "stopped at the best moment; nobody could have chosen so.",
)


def page(results: Sequence[Result]) -> list[str]:
    """Return everything about the replays of one world, or of several, as a Markdown page."""
    lines = ["# Policies replayed on known truth", ""]
    for world in dict.fromkeys(one.world for one in results):
        lines += [f"## {world}", "", *world_section([one for one in results if one.world == world]), ""]
    return [*lines, *NOTES]


def world_section(results: Sequence[Result]) -> list[str]:
    """Return the tables of one world."""
    first = results[0]
    return [
        f"{first.n:,} predictions, {first.good:,} of them good.",
        "",
        *outcomes(results),
        "",
        *yields(results, certified=True),
        "",
        *yields(results, certified=False),
    ]


# --- the thesis's table -----------------------------------------------------------------------------------------------


def table_31_lines(run: RunSummary) -> list[str]:
    """Return a run in the shape of the thesis's Table 3.1, without the columns that nothing is known of."""
    rows = table_rows(run)
    names = [
        column.name
        for column in fields(Row)
        if column.name == "iteration" or any(getattr(row, column.name) is not None for row in rows)
    ]
    header = [name.removesuffix("_percent").replace("_", " ") + (" (%)" if "percent" in name else "") for name in names]
    return markdown(header, [[_cell(row, name) for name in names] for row in rows])


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:,.2f}" if "percent" in name else f"{value:,.0f}"


def table_31_record(run: RunSummary) -> dict[str, Any]:
    """Return the same for programs: one row an iteration, `truth_recall` of the whole run and `upper_bound_ap`."""
    known = (
        "iteration",
        "questions",
        "collected",
        "masks_per_question",
        "precision",
        "truth_recall",
        "ap",
        "control_ap",
    )
    rows = [{key: row.get(key) for key in known} for row in run.iterations]
    recalls = [row["truth_recall"] for row in rows if row["truth_recall"] is not None]
    return {
        "iterations": rows,
        "truth_recall": recalls[-1] if recalls else None,
        "upper_bound_ap": (run.upper_bound or {}).get("ap"),
    }
