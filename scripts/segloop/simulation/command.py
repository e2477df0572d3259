"""The command `segloop simulate`, and the same for a rule: replay policies on known truth, print and draw."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segloop.annotation.policies import POLICIES
from segloop.annotation.probabilities import probability_path
from segloop.config import AnnotationConfig, load, read_values
from segloop.errors import SegloopError
from segloop.files import atomic_file, parse_yaml, write_json
from segloop.reporting.numbers import write_csv
from segloop.reporting.summaries import read_run
from segloop.simulation.figures import draw_cost_curves
from segloop.simulation.pilot import WORLDS, forecast_lines, forecast_record, forecasts
from segloop.simulation.replay import Result, simulate
from segloop.simulation.tables import page, table_31_lines, table_31_record, world_section
from segloop.simulation.worlds import READ_PROBABILITY, KnownWorld, world_of_file, world_of_iteration, world_of_run


@dataclass(frozen=True)
class Wanted:
    """What a person asked for; empty lists and None stand for the defaults."""

    world: Path | None = None
    """A file of predictions and their truth."""
    run: Path | None = None
    """A run directory, instead."""
    iteration: int | None = None
    configfile: Path | None = None
    changes: tuple[str, ...] = ()
    """`annotation.key=value`."""
    policies: tuple[str, ...] = ()
    questions: tuple[int, ...] = ()
    precision: tuple[float, ...] = ()
    delta: float | None = None
    t_iou: float | None = None
    seeds: tuple[int, ...] = (0,)


def replay_command(wanted: Wanted, *, as_json: bool, output: Path | None) -> None:
    """Replay, print a record a line or tables, and write `table.md`, `cost_curves.{svg,png,csv}` and `runs.json`.

    Raises
    ------
    SegloopError
        If the settings are not valid, an input is missing or damaged, or a policy that was named cannot run.
    """
    configs = configurations(wanted)
    known = known_world(wanted, configs[0])
    results = []
    for result in replays(known, configs, wanted.seeds, leave_out=not wanted.policies):
        results.append(result)
        if as_json:
            print(json.dumps(result.record()), flush=True)
    if not as_json:
        print("\n".join([known.name, "", *world_section(results)]))
    if output is not None:
        write_results(results, output)


def replays(
    known: KnownWorld, configs: Sequence[AnnotationConfig], seeds: Sequence[int], *, leave_out: bool
) -> Iterator[Result]:
    """Yield the outcome of each configuration with each seed.

    Parameters
    ----------
    leave_out
        Leave out, and name, a policy that needs something which the world does not have, instead of failing.

    Raises
    ------
    SegloopError
        If a policy cannot run that is not left out, or none can.
    """
    ran = False
    for config in configs:
        for seed in seeds:
            try:
                result = simulate(known, config, seed)
            except SegloopError as error:
                if not leave_out:
                    raise
                say_left_out(config.policy, error)
                break
            ran = True
            yield result
    if not ran:
        raise SegloopError(f"no policy can run on {known.name}. The reasons stand above.")


def configurations(wanted: Wanted) -> list[AnnotationConfig]:
    """Return one configuration for each policy, number of questions and precision that was asked for.

    The annotation section of the configuration file (of the run, where there is none) is the base.

    Raises
    ------
    SegloopError
        If a key or value is not valid.
    """
    base = base_values(wanted)
    pool = load(base).pool
    # The truth is known here, whatever the file says, and that is all that a replay needs of the pool.
    base["pool"] = pool.model_dump(mode="json") | {"truth": {}}
    section = annotation_values(wanted, base)
    load(base | {"annotation": section})
    found = []
    for policy in wanted.policies or tuple(POLICIES):
        try:
            found += _of_policy(policy, wanted, base, section)
        except SegloopError as error:
            # Of all policies, those that need a setting of their own are left out where it is missing.
            if wanted.policies:
                raise
            say_left_out(policy, error)
    return found


def _of_policy(policy: str, wanted: Wanted, base: dict[str, Any], section: dict[str, Any]) -> list[AnnotationConfig]:
    numbers = [{"questions": number} for number in wanted.questions] or [{}]
    targets = [{"precision": precision} for precision in wanted.precision] or [{}]
    return [
        load(
            base | {"annotation": section | number | {"policy": policy, "audit": section["audit"] | target}}
        ).annotation
        for number in numbers
        for target in targets
    ]


def annotation_values(wanted: Wanted, base: dict[str, Any]) -> dict[str, Any]:
    """Return the annotation section with everything that the command line changes, not yet checked."""
    section = dict(base.get("annotation") or {})
    section |= {"annotator": "oracle", "policy": "per_mask", "audit": dict(section.get("audit") or {})}
    if wanted.world is not None:
        section["probability_file"] = str(wanted.world)
    if wanted.delta is not None:
        section["audit"]["delta"] = wanted.delta
    if wanted.t_iou is not None:
        section["t_iou"] = wanted.t_iou
    for change in wanted.changes:
        _change(section, change)
    return section


def say_left_out(policy: str, error: SegloopError) -> None:
    """Say that a policy cannot run here, and why."""
    print(f"{policy} is left out: {error}", file=sys.stderr)


def base_values(wanted: Wanted) -> dict[str, Any]:
    """Return the values of the configuration file, of the run's own where none is given, or nothing."""
    path = wanted.configfile
    if path is None and wanted.run is not None and (recorded := wanted.run / "results" / "config.yaml").exists():
        path = recorded
    return {} if path is None else read_values(path)


def _change(section: dict[str, Any], change: str) -> None:
    """Set a key of the annotation section, in place."""
    name, equals, value = change.partition("=")
    top, *keys = name.strip().split(".")
    if not equals or top != "annotation" or not keys:
        raise SegloopError(f"--set {change!r} is not understood. Write --set annotation.key=value.")
    for key in keys[:-1]:
        inner = section.get(key)
        section[key] = dict(inner) if isinstance(inner, dict) else {}
        section = section[key]
    section[keys[-1]] = parse_yaml(value, f"--set {change!r}: the value")


def known_world(wanted: Wanted, config: AnnotationConfig) -> KnownWorld:
    """Return the world that was asked for, and its truth."""
    if wanted.world is not None:
        return world_of_file(wanted.world, t_iou=wanted.t_iou, components=config.components)
    assert wanted.run is not None
    return world_of_run(
        wanted.run,
        wanted.iteration,
        t_iou=config.t_iou,
        matching=config.matching,
        probability_file=config.probability_file,
    )


def write_results(results: Sequence[Result], output: Path) -> None:
    """Write `table.md`, `cost_curves.{svg,png,csv}` and `runs.json` into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    write_files(
        results,
        svg=output / "cost_curves.svg",
        png=output / "cost_curves.png",
        table=output / "table.md",
        runs=output / "runs.json",
    )


def _points(results: Sequence[Result]) -> Iterator[tuple[object, ...]]:
    """Yield the points of the curves, as many as a figure shows."""
    for result in results:
        curve = result.curve.thinned()
        for questions, accepted, correct in zip(curve.questions, curve.accepted, curve.correct, strict=True):
            named = (result.policy, result.settings, result.seed)
            yield (*named, int(questions), int(accepted), int(correct), result.good)


def write_files(results: Sequence[Result], *, svg: Path, png: Path, table: Path, runs: Path) -> None:
    """Write the figure, the tables and the records, each whole or not at all."""
    draw_cost_curves(results, svg, png)
    with atomic_file(table) as temporary:
        temporary.write_text("\n".join(page(results)) + "\n", encoding="utf-8")
    write_json(runs, [result.record() | {"settings": result.settings} for result in results], sealed=False)
    head = ("policy", "settings", "seed", "questions", "accepted", "good_accepted", "good")
    write_csv(svg.with_suffix(".csv"), head, _points(results))


def simulate_iteration(
    *,
    index: Path,
    tree: Path,
    reduced: Path,
    truth_match: Path,
    svg: Path,
    png: Path,
    table: Path,
    runs: Path,
    annotation: AnnotationConfig,
    policies: Sequence[str],
    seeds: int,
    iteration: int,
    agreement: Path | None = None,
) -> None:
    """Replay policies on a finished iteration whose truth is known, as the configuration says.

    Parameters
    ----------
    index, tree, reduced, truth_match
        Of the iteration.
    svg, png, table, runs
        The files to write.
    annotation
        Settings of all policies.
    policies
        Their names.
    seeds
        How often each is replayed.
    iteration
        Its number.
    agreement
        What `distillation` reads.

    Raises
    ------
    SegloopError
        If an input is missing or damaged, or a policy cannot run.
    """
    configs = [annotation.model_copy(update={"policy": policy}) for policy in policies]
    files = {config.policy: probability_path(config, iteration, agreement) for config in configs}
    known = world_of_iteration(
        index=index,
        tree=tree,
        reduced=reduced,
        truth_match=truth_match,
        name=f"iteration {iteration}",
        t_iou=annotation.t_iou,
        matching=annotation.matching,
        probability={name: path for name, path in files.items() if path is not None and name in READ_PROBABILITY},
    )
    results = list(replays(known, configs, range(seeds), leave_out=False))
    write_files(results, svg=svg, png=png, table=table, runs=runs)


def table_command(run: Path | None, *, as_json: bool) -> None:
    """Print a finished run in the shape of the thesis's Table 3.1.

    Raises
    ------
    SegloopError
        If there is no run, or it has no summary.
    """
    if run is None:
        raise SegloopError("--table is about a run, not about a file. Give --run DIR.")
    summary = read_run(run / "results" / "summary.json")
    print(json.dumps(table_31_record(summary)) if as_json else "\n".join(table_31_lines(summary)))


def pilot_command(wanted: Wanted, *, answers: int, as_json: bool) -> None:
    """Print what questions will buy, judged from a few answers; of the policy `certified` unless another is named.

    Parameters
    ----------
    answers
        Masks that are asked first, drawn uniformly.

    Raises
    ------
    SegloopError
        As `replay_command` does.
    """
    if not wanted.policies:
        wanted = replace(wanted, policies=("certified",))
    configs = configurations(wanted)
    known = known_world(wanted, configs[0])
    found = forecasts(known, configs, answers=answers, worlds=WORLDS, seed=wanted.seeds[0])
    if as_json:
        print("\n".join(json.dumps(forecast_record(one)) for one in found))
    else:
        print("\n".join(forecast_lines(known, found)))
