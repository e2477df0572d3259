"""The page and the figure of the question benchmark, made from its record alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scipy.stats import beta

from common import heading
from questions_runs import FILE, MOST, NOT_REPEATED, SETTINGS, code, from_record, planned
from segloop.reporting.style import new_figure, save, style
from segloop.simulation.figures import draw_panel, marks_explained
from segloop.simulation.replay import Result
from segloop.simulation.tables import NOTES, world_section
from segloop.simulation.worlds import TREE

DELTA: Final = 0.05
LARGE, SMALL = 411_530, 82_306
DRAWN: Final = (
    f"D, {SMALL:,} masks",
    f"E, {SMALL:,} masks",
    f"D, {LARGE:,} masks",
    f"E, {LARGE:,} masks",
    f"{FILE}, IoU > 0.8",
)
"""Worlds that are drawn, if they are there; others in their place if not."""
PANELS: Final = 5


@dataclass(frozen=True)
class Wanted:
    """One row of what is wanted of `certified`."""

    world: str
    n: int
    """0: the file's."""
    target: float
    """Precision to be certified."""
    masks_per_question: float
    recall: float
    thesis: str
    successor: str

    @property
    def words(self) -> str:
        """The row's name."""
        place = f"{self.world}, {self.n:,} masks" if self.n else self.world
        return f"{place}; certified {self.target:g}"


WANTED: Final = (
    Wanted("E", SMALL, 0.9, 10, 0.5, "3.05", "5.2 at .49"),
    Wanted("D", SMALL, 0.9, 2, 0.45, ".94", "1.15 at .44"),
    Wanted("E", LARGE, 0.9, 34, 0.6, "3.3", "18 at .33, misses .9"),
    Wanted("D", LARGE, 0.9, 8, 0.3, ".84", "1.9 at .07"),
    Wanted(f"{FILE}, IoU > 0.8", 0, 0.8, 5, 0.25, "1.3 at realised .80, 3,210 questions", "3.1 at realised .845"),
    Wanted(f"{FILE}, IoU > 0.8", 0, 0.9, 2, 0.15, "never reaches .90", "never reaches .90"),
    Wanted(f"{FILE}, IoU > 0.7", 0, 0.9, 9, 0.3, "6.4 at realised .83", "8.8 at realised .857"),
)


@dataclass(frozen=True)
class Gain:
    """What a policy brought with a target precision, mean over the seeds."""

    masks_per_question: float
    recall: float
    seeds: int
    certified: int
    """Seeds that certified the target."""

    def __str__(self) -> str:
        return f"{self.masks_per_question:.2f} at {self.recall:.3f} ({self.certified} of {self.seeds})"


def gain(results: Sequence[Result], policy: str, row: Wanted) -> Gain | None:
    """Return what a policy with its own audit brought on a row's world, None if it was not run there.

    A seed that certified nothing counts with the masks that were confirmed one by one.
    """
    chosen = [
        one
        for one in results
        if one.policy == policy
        and one.world == row.world
        and row.n in (0, one.n)
        and one.settings.get("audit.precision", 0.9) == row.target
    ]
    if not chosen:
        return None
    reached = [one.certified is not None and one.certified >= row.target for one in chosen]
    masks = [one.correct if shown else one.confirmed for one, shown in zip(chosen, reached, strict=True)]
    count = len(chosen)
    return Gain(
        masks_per_question=sum(m / max(one.questions, 1) for m, one in zip(masks, chosen, strict=True)) / count,
        recall=sum(m / max(one.good, 1) for m, one in zip(masks, chosen, strict=True)) / count,
        seeds=count,
        certified=sum(reached),
    )


def met(row: Wanted, found: Gain) -> bool:
    """Return whether a row's masks per question are reached at its recall."""
    return found.masks_per_question >= row.masks_per_question and found.recall >= row.recall


def beats(row: Wanted, own: Gain, other: Gain) -> bool:
    """Return whether one policy is better: it reaches the recall where the other does not, or has more a question."""
    if (own.recall >= row.recall) != (other.recall >= row.recall):
        return own.recall >= row.recall
    return own.masks_per_question > other.masks_per_question


# --- the page ---------------------------------------------------------------------------------------------------------


def page(record: dict[str, Any]) -> list[str]:
    """Return docs/benchmarks/questions.md."""
    runs = measured(record)
    lines = heading("Questions", "make bench-questions NUCLEI=FILE.npz", "numpy", "scipy", "fastcluster")
    lines += [*_conditions(record), *_goals([from_record(run) for run in runs if run["part"] != "claims"])]
    lines += _claims([run for run in runs if run["part"] == "claims"])
    if record.get("pilot"):
        lines += _pilot(record["pilot"])
    lines += _speed(runs)
    worlds = _worlds(runs)
    lines += ["## Every world", "", *NOTES, ""] if worlds else []
    for title, results in worlds.items():
        lines += [f"### {title}", "", *world_section(results), ""]
    return [*lines, *_left_out(record)]


def measured(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that took place."""
    return [run for run in record["runs"] if "left_out" not in run]


def _conditions(record: dict[str, Any]) -> list[str]:
    lines = [
        "Every answer counts as a question: those of pilots, of calibration and of audits. Answers are true. Masks",
        "are accepted masks that are good. Simulated worlds: `benchmarks/simulated_world.py`, levels B (hardly",
        "separable) to E (well separable), base rate .256; world and questions take the same seed. Trees: Ward, by",
        f"category, partitions of at most {TREE.m_max:,}. Nuclei: the predictions of a small detector on real images,",
        f"at most {MOST} questions. Delta is {DELTA}.",
        "",
        "![Recall and precision against questions](questions.png)",
        "",
    ]
    sources = {run["world"].split(",")[0] for run in record["runs"] if run["part"] == "nuclei"}
    made, wanted = len(record["runs"]), planned(len(sources))
    if made < wanted:
        lines += [
            f"The record holds {made:,} of the {wanted:,} runs that the command makes with all its seeds; each",
            "table says how many it has.",
            "",
        ]
    older = sum(run["code"] != code(run["policy"]) for run in record["runs"])
    if older:
        lines += [f"{older:,} of {len(record['runs']):,} runs were measured with an earlier state of the code."]
        again = record.get("repeated", NOT_REPEATED)
        if again["runs"]:
            lines += [
                f"{again['runs']:,} were measured again since, and {again['same']:,} of these gave the same figures."
            ]
        lines += [""]
    return lines


def _goals(results: Sequence[Result]) -> list[str]:
    rows = []
    for row in WANTED:
        own, other = gain(results, "certified", row), gain(results, "score_audit", row)
        if own is None:
            continue
        ahead = "" if other is None else "yes" if beats(row, own, other) else "**no**"
        wanted = f"{row.masks_per_question:g} at {row.recall:g}"
        cells = [row.words, wanted, str(own), "yes" if met(row, own) else "**no**", str(other or ""), ahead]
        rows.append([*cells, row.thesis, row.successor])
    if not rows:
        return []
    header = ["world", "wanted", "`certified`", "met", "`score_audit`", "better than it", "thesis", "successor"]
    return [
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Masks per question at recall, mean over the seeds; in brackets the seeds that certified the precision. A seed",
        "that did not counts with the masks that were confirmed one by one. Thesis and successor: the best that they",
        "reached in earlier measurements on the same worlds, their precision known in hindsight only.",
        "",
    ]


def _claims(runs: Sequence[dict[str, Any]]) -> list[str]:
    if not runs:
        return []
    lines = [
        "## Are the claims true?",
        "",
        "Each policy on many independent small worlds, target precision .9; each run draws its audits by itself. A",
        "claim is false where the accepted set is less precise than the certified bound. The last column bounds the",
        "probability of that, with confidence .95.",
        "",
        "| policy | worlds | audited runs | claims | false | share of runs | at most |",
        "|---|---|---|---|---|---|---|",
    ]
    policies = list(dict.fromkeys(run["policy"] for run in runs))
    lines += [_claims_row(policy, [run for run in runs if run["policy"] == policy]) for policy in policies]
    if len(policies) > 1:
        lines.append(_claims_row("all", runs))
    return [*lines, ""]


def _claims_row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    claims = [run for run in runs if run["certified"] is not None]
    false = sum(run["precision"] < run["certified"] for run in claims)
    most = beta.ppf(0.95, false + 1, len(runs) - false) if false < len(runs) else 1.0
    worlds = len({run["seed"] for run in runs})
    return f"| {name} | {worlds} | {len(runs)} | {len(claims)} | {false} | {false / len(runs):.4f} | {most:.4f} |"


def _pilot(part: dict[str, Any]) -> list[str]:
    rows = part["rows"]
    held = {
        name: sum(_inside(row["forecast"][name], row["realised"][name]) for row in rows)
        for name in ("masks", "questions", "precision")
    }
    lines = [
        "## Does the pilot foresee it?",
        "",
        f"`segloop simulate --pilot`: {part['answers']} answers, {part['worlds']} possible worlds, `certified` for",
        f"precision .8 and {MOST} questions at most, on {part['place']['world']}, IoU > {part['place']['t_iou']:g}.",
        "Nine of ten realised values should lie in the interval. "
        + ", ".join(f"{name}: {count} of {len(rows)}" for name, count in held.items())
        + ".",
        "",
        "| seed | masks foretold | masks | questions foretold | questions | precision foretold | precision |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        cells = [str(row["seed"])]
        for name, form in (("masks", ",.0f"), ("questions", ",.0f"), ("precision", ".3f")):
            cells += [_interval(row["forecast"][name], form), _number(row["realised"][name], form)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _inside(interval: Sequence[float] | None, value: float | None) -> bool:
    return interval is not None and value is not None and interval[1] <= value <= interval[2]


def _interval(interval: Sequence[float] | None, form: str) -> str:
    if interval is None:
        return "-"
    return f"{interval[0]:{form}} ({interval[1]:{form}} to {interval[2]:{form}})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _speed(runs: Sequence[dict[str, Any]]) -> list[str]:
    own = [run for run in runs if run["policy"] == "certified"]
    sizes = sorted({run["n"] for run in own})
    if not sizes:
        return []
    lines = [
        "## How long a decision takes",
        "",
        "The longest that `certified` took between two batches of answers, and that per mask; the features of the",
        "world, made once, included. Other programs used the same cores during many of these runs;",
        "[certificates.md](certificates.md) measures decisions by themselves.",
        "",
        "| masks | runs | seconds at most | microseconds a mask |",
        "|---|---|---|---|",
    ]
    for n in sizes:
        slowest = [run["slowest"] for run in own if run["n"] == n]
        lines.append(f"| {n:,} | {len(slowest)} | {max(slowest):.2f} | {1e6 * max(slowest) / n:.1f} |")
    return [*lines, ""]


def _worlds(runs: Sequence[dict[str, Any]]) -> dict[str, list[Result]]:
    """Return the results of each world but the many small ones, in the order of the page."""
    found: dict[str, list[Result]] = {}
    for run in sorted(runs, key=lambda run: (run["part"] == "nuclei", run["n"], run["world"])):
        if run["part"] != "claims":
            title = f"{run['world']}, {run['n']:,} masks" if run["part"] == "simulated" else run["world"]
            found.setdefault(title, []).append(from_record(run))
    # In the order of the policies, whatever the order of the runs.
    order = list(SETTINGS)
    return {title: sorted(results, key=lambda one: order.index(one.policy)) for title, results in found.items()}


def _left_out(record: dict[str, Any]) -> list[str]:
    reasons = {(run["policy"], run["left_out"]) for run in record["runs"] if "left_out" in run}
    if not reasons:
        return []
    return ["## Left out", "", *(f"- {policy}: {reason}" for policy, reason in sorted(reasons)), ""]


# --- the figure -------------------------------------------------------------------------------------------------------


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw recall and precision against questions on each world, the first setting of each policy."""
    drawn = {title: found for title, results in _worlds(measured(record)).items() if (found := _drawn(results))}
    worlds = {title: drawn[title] for title in [*(t for t in DRAWN if t in drawn), *drawn][:PANELS]}
    if not worlds:
        return
    policies = [name for name in SETTINGS if any(one.policy == name for found in worlds.values() for one in found)]
    looks = {name: place for place, name in enumerate(policies)}
    with style():
        figure = new_figure(4.6 * len(worlds), 8.4)
        panels = figure.subplots(2, len(worlds), squeeze=False)
        handles = {}
        for column, (title, results) in enumerate(worlds.items()):
            for row, what in enumerate(("recall", "precision")):
                found = draw_panel(panels[row, column], results, what, looks)
                handles |= {handle.get_label(): handle for handle in found}
            panels[0, column].set_title(title)
        shown = [handles[name] for name in policies] + marks_explained()
        figure.legend(handles=shown, loc="outside lower center", ncols=max(1, 3 * len(worlds) // 2), fontsize=9.5)
        save(figure, path, dpi=100)


def _drawn(results: Sequence[Result]) -> list[Result]:
    """Return the runs of the first setting of each policy, so that labels are the policies' names."""
    first = {policy: (settings[0], settings[0] | {"questions": MOST}) for policy, settings in SETTINGS.items()}
    return [one for one in results if one.settings in first[one.policy]]
