"""The ledger: what an iteration and a run cost, of people and of machines, and what its masks are worth."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segloop.annotation.answers import read_answers
from segloop.annotation.edits import edit_work
from segloop.config import LoopConfig, PricesConfig
from segloop.errors import SegloopError
from segloop.files import read_document, read_json, write_json
from segloop.store.index import read_index_columns

LEDGER_SCHEMA: Final = 1
DETECTOR_STEPS: Final = ("train_detector", "evaluate_detector", "predict_shard", "measure_agreement")
"""Steps that run on a GPU where there is one."""

_SECONDS_AN_HOUR: Final = 3600.0


def tally_iteration(
    *,
    iteration: int,
    evaluation: Path,
    models: list[Path],
    benchmarks: Mapping[str, list[Path]],
    prices: PricesConfig,
    loop: LoopConfig,
    output: Path,
    index: Path | None = None,
    answers: Path | None = None,
    collected: Path | None = None,
    quality: Path | None = None,
    edited: Path | None = None,
) -> None:
    """Write the ledger of an iteration.

    Parameters
    ----------
    evaluation, models
        evaluation.json of the first detector and the folders of the models that this iteration trained.
    benchmarks
        Of each step, Snakemake's TSV files of its jobs; missing ones count as 0.
    index, answers, collected
        Of this iteration; None in iteration 0, in which nobody is asked.
    quality
        quality.json of this iteration; None where no mask is redrawn.
    edited
        edited.json of this iteration; None where nobody edits.
    output
        {"schema_version", "iteration", "accepted", "people": {"questions", "redraws", "edits", "seconds",
        "dollars", "by_purpose", "by_annotator"}, "categories": {name: {"questions", "redraws", "edits", "seconds",
        "dollars", "accepted", "value_per_mask"}},
        "machine": {"gpu_hours", "cpu_hours", "dollars", "steps"}, "total_dollars", "per_accepted_mask": {"questions",
        "seconds", "total_dollars"} or null, "value"}. `accepted` are new masks, `value` is what they are worth in
        dollars, null where the configuration does not say.

    Raises
    ------
    SegloopError
        If a file is missing or damaged, or a value is set for a category that does not exist.
    """
    machine = _machine(models, benchmarks, prices)
    ledger: dict[str, Any] = {"schema_version": LEDGER_SCHEMA, "iteration": iteration, "accepted": 0}
    ledger |= {"people": _People.none().record(), "categories": {}, "machine": machine, "value": None}
    if index is not None and answers is not None and collected is not None:
        table, masks = _work(read_answers(answers), quality, edited), read_json(collected)
        values = value_per_mask(loop, read_document(evaluation)["ap_per_category"])
        categories = _categories(table, index, masks, values)
        ledger |= {"accepted": len(masks["annotations"]), "people": _people(table), "categories": categories}
        if values is not None:
            ledger["value"] = float(sum(one["accepted"] * one["value_per_mask"] for one in categories.values()))
    write_json(output, _with_totals(ledger))


def tally_run(*, ledgers: list[Path], prices: PricesConfig, output: Path) -> None:
    """Write the ledger of a run: {"schema_version", "prices", "iterations": [a ledger each], "total"}.

    The control and the upper bound are not counted: they belong to no loop that only collects.
    """
    iterations = [read_document(path) for path in ledgers]
    values = [one["value"] for one in iterations if one["value"] is not None]
    total = {
        "accepted": sum(one["accepted"] for one in iterations),
        "people": _summed(iterations, "people", ("questions", "redraws", "edits", "seconds", "dollars")),
        "machine": _summed(iterations, "machine", ("gpu_hours", "cpu_hours", "dollars")),
        "value": sum(values) if values else None,
    }
    write_json(
        output,
        {
            "schema_version": LEDGER_SCHEMA,
            "prices": prices.model_dump(mode="json"),
            "iterations": iterations,
            "total": _with_totals(total),
        },
    )


def _summed(iterations: list[dict[str, Any]], part: str, names: tuple[str, ...]) -> dict[str, Any]:
    # A ledger that was written before redraws and edits were counted has none.
    return {name: sum(one[part].get(name, 0) for one in iterations) for name in names}


def _with_totals(ledger: dict[str, Any]) -> dict[str, Any]:
    people, accepted = ledger["people"], ledger["accepted"]
    total = people["dollars"] + ledger["machine"]["dollars"]
    each = None
    if accepted:
        spent = {"questions": people["questions"], "seconds": people["seconds"], "total_dollars": total}
        each = {name: value / accepted for name, value in spent.items()}
    return ledger | {"total_dollars": total, "per_accepted_mask": each}


# --- people -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _People:
    questions: int
    redraws: int
    edits: int
    seconds: float
    dollars: float

    @staticmethod
    def none() -> "_People":
        return _People(0, 0, 0, 0.0, 0.0)

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"by_purpose": {}, "by_annotator": {}}


def _work(answers: pa.Table, quality: Path | None, edited: Path | None) -> pa.Table:
    """Return a row for each answer, and for each mask that was redrawn or edited, with the `purpose` redraw or edit."""
    columns = ("prediction", "annotator", "purpose", "seconds", "price")
    table = answers.select(columns)
    for name in ("redraws", "edits"):
        table = table.append_column(name, pa.array([0] * len(answers), pa.int64()))
    redraws = [] if quality is None else read_document(quality)["redraws"]
    rows = [one | {"purpose": "redraw", "redraws": 1, "edits": 0} for one in redraws]
    rows += [one | {"purpose": "edit", "redraws": 0, "edits": 1} for one in edit_work(edited)]
    rows = [one | {"prediction": int(one["prediction"])} for one in rows]
    return pa.concat_tables([table, pa.Table.from_pylist(rows, schema=table.schema)]).combine_chunks()


def _people(work: pa.Table) -> dict[str, Any]:
    whole = _sums(work.append_column("all", pa.array([""] * len(work))), "all").get("", _People.none())
    by = {name: _sums(work, column) for name, column in (("by_purpose", "purpose"), ("by_annotator", "annotator"))}
    return asdict(whole) | {name: {key: asdict(one) for key, one in sums.items()} for name, sums in by.items()}


def _sums(work: pa.Table, column: str) -> dict[str, _People]:
    """Return questions, redraws, edits, seconds and dollars by the values of a column, in alphabetical order."""
    costs = [pc.fill_null(work.column(name), 0.0) for name in ("seconds", "price")]
    # One thread: sums of floating point numbers depend on their order.
    counts = [work.column(name) for name in ("redraws", "edits")]
    names = ["key", "redraws", "edits", "seconds", "price"]
    table = pa.table([work.column(column), *counts, *costs], names=names)
    wanted = [([], "count_all"), *((name, "sum") for name in names[1:])]
    rows = sorted(
        table.group_by("key", use_threads=False).aggregate(wanted).to_pylist(), key=lambda row: str(row["key"])
    )
    return {
        row["key"]: _People(
            row["count_all"] - row["redraws_sum"] - row["edits_sum"],
            *(row[f"{name}_sum"] for name in ("redraws", "edits", "seconds", "price")),
        )
        for row in rows
    }


def _categories(
    work: pa.Table, index: Path, collected: dict[str, Any], values: dict[str, float] | None
) -> dict[str, dict[str, Any]]:
    """Return what was spent and accepted in each category of the seed set; work about no prediction are in none."""
    names = {int(category["id"]): str(category["name"]) for category in collected["categories"]}
    prediction, category = read_index_columns(index, "prediction", "category")
    about = work.column("prediction").to_numpy().astype(np.uint64)
    place = np.minimum(np.searchsorted(prediction, about), max(0, len(prediction) - 1))
    known = np.zeros(len(about), np.bool_) if not len(prediction) else prediction[place] == about
    kinds = [names.get(int(category[row])) if found else None for row, found in zip(place, known, strict=True)]
    sums = _sums(work.append_column("category", pa.array(kinds, pa.string())), "category")
    accepted = Counter(names[int(annotation["category_id"])] for annotation in collected["annotations"])
    if values is not None:
        _check_names(values, names)
    return {
        name: asdict(sums.get(name, _People.none()))
        | {"accepted": accepted[name], "value_per_mask": None if values is None else values.get(name, 0.0)}
        for name in names.values()
    }


# --- what masks are worth ---------------------------------------------------------------------------------------------


def value_per_mask(loop: LoopConfig, ap_per_category: Mapping[str, float | None]) -> dict[str, float] | None:
    """Return what a mask of each category is worth in dollars, None where the configuration does not say.

    With `loop.value_by_ap` the value v_c of a category is v_c (1 - AP_c), scaled so that the sum over the categories
    stays: masks of what the detector finds hard are worth more. A category without an AP has the mean one.

    Parameters
    ----------
    ap_per_category
        AP of the newest model by category name, in 0..1; None where the validation set has no instance.
    """
    if loop.value_per_mask is None:
        return None
    if isinstance(loop.value_per_mask, dict):
        base = dict.fromkeys(ap_per_category, 0.0) | loop.value_per_mask
    else:
        base = dict.fromkeys(ap_per_category, loop.value_per_mask)
    if not loop.value_by_ap:
        return base
    known = [ap for ap in ap_per_category.values() if ap is not None]
    mean = sum(known) / len(known) if known else 0.0
    weights = {name: 1 - (mean if (ap := ap_per_category.get(name)) is None else ap) for name in base}
    weighted = sum(base[name] * weights[name] for name in base)
    scale = sum(base.values()) / weighted if weighted else 1.0
    return {name: base[name] * weights[name] * scale if weighted else base[name] for name in base}


def _check_names(values: Mapping[str, float], names: Mapping[int, str]) -> None:
    unknown = sorted(values.keys() - set(names.values()))
    if unknown:
        raise SegloopError(
            f"loop.value_per_mask names the category {unknown[0]!r}, which the seed set lacks; it has "
            f"{', '.join(names.values())}."
        )


# --- machines ---------------------------------------------------------------------------------------------------------


def _machine(models: list[Path], benchmarks: Mapping[str, list[Path]], prices: PricesConfig) -> dict[str, Any]:
    trained = [read_json(model / "model.json") for model in models]
    # All are trained on one kind of device.
    on_gpu = any(str(one.get("device", "cpu")).startswith("cuda") for one in trained)
    steps = {}
    for step, paths in benchmarks.items():
        gpu = on_gpu and step in DETECTOR_STEPS
        hours = sum(_hours(path, gpu) for path in paths if path.is_file())
        if gpu and step == "train_detector":
            # A training knows all its GPUs and restarts; Snakemake saw one of its processes, or who waited for it.
            counted = [one["gpu_hours"] for one in trained if "gpu_hours" in one]
            hours = sum(counted) if len(counted) == len(trained) else hours
        dollars = hours * (prices.gpu_hour if gpu else prices.cpu_hour)
        steps[step] = {"gpu_hours": hours if gpu else 0.0, "cpu_hours": 0.0 if gpu else hours, "dollars": dollars}
    names = ("gpu_hours", "cpu_hours", "dollars")
    return {name: float(sum(step[name] for step in steps.values())) for name in names} | {"steps": steps}


def _hours(benchmark: Path, gpu: bool) -> float:
    """Return the hours that a job held a GPU, or CPU cores: at least one as long as it ran, more if it used more."""
    with benchmark.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        # Repeated benchmarks are repeated runs: each held the machine.
        return sum(_seconds(row, gpu) for row in rows) / _SECONDS_AN_HOUR
    except (KeyError, TypeError, ValueError):
        raise SegloopError(
            f"{benchmark} is not a benchmark of Snakemake. Remove it and run the ledger again."
        ) from None


def _seconds(row: dict[str, str], gpu: bool) -> float:
    elapsed = float(row["s"])
    used = row.get("cpu_time") or "NA"
    # Snakemake writes NA for jobs too short to be measured.
    return elapsed if gpu or used == "NA" else max(elapsed, float(used))
