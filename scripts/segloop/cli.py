"""The command `segloop`: what a person types around the workflow; one thin function a subcommand."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from segloop import __version__
from segloop.data import exports
from segloop.errors import SegloopError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 failed (or runs differ), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except SegloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="segloop", description=sys.modules[__name__.partition(".")[0]].__doc__)
    parser.add_argument("--version", action="version", version=f"segloop {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="check the configuration, run the loop with Snakemake, print the table")
    run.add_argument("--profile", default="profiles/local", help="Snakemake profile (default: %(default)s)")
    run.add_argument("--configfile", required=True, type=Path, help="configuration, such as config/demo.yaml")
    run.add_argument("--directory", required=True, type=Path, help="run directory; made when missing")
    run.add_argument("--report", action="store_true", help="build report.html in the run directory at the end")
    run.add_argument(
        "--left-over",
        choices=("wait", "cancel", "refuse"),
        default="wait",
        help="SLURM jobs of an earlier run that was killed: wait for their end, cancel them, or refuse to start",
    )
    run.add_argument("--every", type=float, default=60.0, help="seconds between lines of progress; 0: none")
    run.add_argument("snakemake", nargs="*", help="a target, and after `--` further arguments for Snakemake")
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="build the report of what is done, whether the run has ended or not")
    report.add_argument("--profile", default="profiles/local", help="Snakemake profile (default: %(default)s)")
    report.add_argument("--configfile", required=True, type=Path, help="configuration of the run")
    report.add_argument("--directory", required=True, type=Path, help="run directory")
    report.add_argument("--output", type=Path, metavar="FILE.html", help="the page (default: report.html there)")
    report.set_defaults(command=_report)

    status = commands.add_parser("status", help="tell from its files how far a run is and what takes its space")
    status.add_argument("--directory", required=True, type=Path, help="run directory")
    status.set_defaults(command=_status)

    cancel = commands.add_parser("cancel", help="end the SLURM jobs that a killed run left behind")
    cancel.add_argument("--directory", required=True, type=Path, help="run directory")
    cancel.set_defaults(command=_cancel)

    compare = commands.add_parser("compare", help="put finished runs side by side, or compare two file by file")
    compare.add_argument("--exact", action="store_true", help="two runs, whose every result must be the same")
    compare.add_argument("--output", type=Path, metavar="DIR", help="write page, figure and numbers there")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    compare.set_defaults(command=_compare)
    _add_explain(commands)
    _add_simulate(commands)
    _add_export(commands)
    _add_doctor(commands)
    _add_label(commands)
    _add_stats(commands)

    forget = commands.add_parser("forget", help="remove an annotator's name; the answers stay")
    forget.add_argument("--annotator", required=True, metavar="ID", help="the id that the answers hold")
    forget.add_argument("--answers", required=True, type=Path, metavar="DIR", help="folder of people's answers")
    forget.set_defaults(command=_forget)
    return parser


def _add_label(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    label = commands.add_parser("label", help="open LabelMeLite: people answer and draw in the browser")
    label.add_argument("--run", type=Path, metavar="DIR", help="a run directory, whose questions people answer")
    label.add_argument("--iteration", type=_positive, metavar="I", help="of the run (default: the last one)")
    label.add_argument("--annotations", type=Path, metavar="FILE", help="a COCO file, without the loop")
    label.add_argument("--images", metavar="DIR|URL", help="folder or URL base of its images, or a folder alone")
    label.add_argument("--bundle", type=Path, metavar="FILE", help="a file of questions, such as the thesis author's")
    label.add_argument(
        "--allow", action="append", default=[], metavar="DIR|URL", help="more places of images; repeatable"
    )
    label.add_argument("--data", type=Path, metavar="DIR", help="where the database lies (default: beside the data)")
    label.add_argument("--copies", type=Path, metavar="DIR", help="copy the database there every few minutes")
    label.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    label.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    label.add_argument("--public", metavar="URL", help="the address that people type, when a proxy stands before")
    label.add_argument("--adapter", choices=("lab", "study", "mturk", "file"), help="how people come (default: lab)")
    label.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the other settings (docs/labelling.md)")
    label.add_argument("--no-tokens", action="store_true", help="on 127.0.0.1: whoever reaches the server is its owner")
    label.add_argument("--open", action="store_true", help="open the browser")
    label.set_defaults(command=_label)

    bundle = commands.add_parser("bundle", help="questions as files for people without a network, and answers back")
    ways = bundle.add_subparsers(required=True, metavar="out|in")
    out = ways.add_parser("out", help="lease questions of a run to somebody, and write them with their images")
    out.add_argument("--name", required=True, help="who will answer them")
    out.add_argument("--tasks", type=_positive, default=1, help="number of bundles (default: %(default)s)")
    out.add_argument("--days", type=_positive, default=14, help="lease; then others are asked (default: %(default)s)")
    out.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write into")
    back = ways.add_parser("in", help="take answered bundles back")
    back.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files that LabelMeLite wrote")
    for way in (out, back):
        way.add_argument("--run", required=True, type=Path, metavar="DIR", help="run directory")
        way.add_argument("--iteration", type=_positive, metavar="I", help="of the run (default: the one that waits)")
        way.add_argument("--data", type=Path, metavar="DIR", help="where the database lies (default: as for label)")
    out.set_defaults(command=_bundle_out)
    back.set_defaults(command=_bundle_in)

    mturk = commands.add_parser("mturk", help="tasks on Amazon Mechanical Turk, with an account of your own")
    mturk.add_argument("way", choices=("post", "list", "approve", "end"))
    mturk.add_argument("--project", required=True, help="name under which the tasks are found again")
    mturk.add_argument("--live", action="store_true", help="the real one, which costs money (default: the sandbox)")
    mturk.add_argument("--endpoint", metavar="URL", help="another address of the interface")
    mturk.add_argument("--link", help="post: an invite of the kind mturk, over https")
    mturk.add_argument("--count", type=_positive, default=1, help="post: number of tasks (default: %(default)s)")
    mturk.add_argument("--reward", type=float, help="post: dollars for a task")
    mturk.add_argument("--seconds", type=float, help="post: of one task, from which --wage makes the reward")
    mturk.add_argument("--wage", type=float, default=15.0, help="post: dollars an hour (default: %(default)s)")
    mturk.add_argument("--minutes", type=_positive, default=30, help="post: to finish a task (default: %(default)s)")
    mturk.add_argument("--days", type=_positive, default=3, help="post: the offer stands (default: %(default)s)")
    mturk.add_argument("--country", action="append", default=[], metavar="US", help="post: of workers; repeatable")
    mturk.add_argument("--data", type=Path, metavar="DIR", help="approve: where the database lies")
    mturk.set_defaults(command=_mturk)


def _add_explain(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    explain = commands.add_parser("explain", help="tell why a mask is in the data set")
    explain.add_argument("mask", metavar="ID", help="id in collected.json, prediction id, or mask key")
    explain.add_argument("--run", required=True, type=Path, metavar="DIR", help="run directory")
    explain.add_argument("--iteration", type=int, metavar="I", help="of an id in collected.json")
    explain.add_argument("--page", type=Path, metavar="FILE.html", help="write a page with pictures there")
    explain.add_argument("--json", action="store_true", help="print one JSON object")
    explain.set_defaults(command=_explain)


def _add_simulate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    simulate = commands.add_parser("simulate", help="replay policies on predictions whose truth is known")
    source = simulate.add_mutually_exclusive_group(required=True)
    source.add_argument("--world", type=Path, metavar="FILE.npz", help="embedding, category, score, good (or iou)")
    source.add_argument("--run", type=Path, metavar="DIR", help="a run directory whose pool has truth")
    simulate.add_argument("--iteration", type=int, metavar="I", help="of the run (default: the last one)")
    simulate.add_argument("--configfile", type=Path, help="its annotation section is the base (default: the run's own)")
    simulate.add_argument("--policy", action="append", default=[], metavar="NAME", help="repeatable (default: all)")
    simulate.add_argument("--questions", action="append", default=[], type=int, metavar="Q", help="maximum; repeatable")
    simulate.add_argument("--precision", action="append", default=[], type=float, metavar="PI", help="repeatable")
    simulate.add_argument("--delta", type=float, help="probability that a certificate may be false")
    simulate.add_argument("--t-iou", type=float, metavar="X", help="a mask is good when its IoU is above this")
    simulate.add_argument(
        "--set", action="append", default=[], metavar="annotation.KEY=VALUE", help="any other setting; repeatable"
    )
    seeds = simulate.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0, metavar="S", help="of the questions (default: 0)")
    seeds.add_argument("--seeds", type=_positive, metavar="N", help="replay with the seeds 0..N-1")
    simulate.add_argument("--json", action="store_true", help="print one record a line instead of tables")
    simulate.add_argument("--output", type=Path, metavar="DIR", help="write tables, cost curves and records there")
    other = simulate.add_mutually_exclusive_group()
    other.add_argument(
        "--pilot",
        nargs="?",
        const=200,
        type=_positive,
        metavar="A",
        help="tell from A answers (default: 200) what questions will buy",
    )
    other.add_argument("--table", action="store_true", help="print the run in the shape of the thesis's Table 3.1")
    simulate.set_defaults(command=_simulate)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="write what a run has collected, or any data set, in another format")
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="what a run has collected")
    source.add_argument("--annotations", type=Path, metavar="PATH", help="a data set of any format that segloop reads")
    formats = exports.FILES | exports.FOLDERS
    about = "; ".join(f"{name}: {words}" for name, words in formats.items())
    export.add_argument("--format", required=True, choices=formats, metavar="NAME", help=about)
    export.add_argument("--out", required=True, type=Path, metavar="PATH", help="file or folder to write")
    export.add_argument("--iteration", action="append", type=int, metavar="I", help="of the run; repeatable")
    export.add_argument("--categories", action="append", metavar="NAME", help="name or id to keep; repeatable")
    export.add_argument("--images", choices=exports.IMAGE_MODES, help="default: link; coco_folder: copy; a file: none")
    export.add_argument("--split", default="train", metavar="NAME", help="the part it becomes (default: %(default)s)")
    export.add_argument("--order", choices=exports.ORDERS, help="which mask lies on top where a pixel can hold one")
    export.add_argument("--join", choices=exports.JOINS, default="parts", help="what one polygon joins (yolo)")
    export.add_argument("--force", action="store_true", help="replace an earlier export")
    _add_dataset_options(export)
    export.set_defaults(command=_export)


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help="find every bad record of a data set, or every damaged file of a run",
        description="Exit status: 0 usable, 3 usable without its bad records, 4 not usable. Of a run: 0 whole, 3 "
        "damaged, but the next run makes it anew, 4 people's answers are damaged.",
    )
    doctor.add_argument("path", type=Path, nargs="?", metavar="FILE|FOLDER", help="a data set, or a folder of images")
    doctor.add_argument("--run", type=Path, metavar="DIR", help="a run directory: which of its files are damaged")
    doctor.add_argument("--deep", action="store_true", help="of a run: read every byte and compare all checksums")
    doctor.add_argument("--repaired", type=Path, metavar="OUT", help="write a copy without what is wrong")
    doctor.add_argument(
        "--check-images",
        choices=("decode", "head", "none"),
        default="decode",
        help="decode image files, open their heads alone, or leave them (default: %(default)s)",
    )
    how = doctor.add_mutually_exclusive_group()
    how.add_argument("--all", action="store_true", help="list every bad record, not ten of each kind")
    how.add_argument("--json", action="store_true", help="print one JSON object that lists every record")
    _add_dataset_options(doctor)
    doctor.set_defaults(command=_doctor)


def _add_stats(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stats = commands.add_parser("stats", help="count what a run has collected, or what a data set holds")
    stats.add_argument("path", type=Path, nargs="?", metavar="FILE|FOLDER", help="a data set")
    stats.add_argument("--run", type=Path, metavar="DIR", help="what a run has collected")
    stats.add_argument("--iteration", action="append", type=int, metavar="I", help="of the run; repeatable")
    stats.add_argument("--fast", action="store_true", help="draw no mask: no holes, areas of polygons as stated")
    stats.add_argument("--figure", type=Path, metavar="DIR", help="draw Figure 2-1 of the thesis there, with this set")
    stats.add_argument("--name", help="of the data set in the figure (default: its file's or folder's)")
    how = stats.add_mutually_exclusive_group()
    how.add_argument("--all", action="store_true", help="list every category, not the twenty largest")
    how.add_argument("--json", action="store_true", help="print one JSON object")
    _add_dataset_options(stats)
    stats.set_defaults(command=_stats)


def _add_dataset_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--read-as", metavar="FORMAT", help="format of the data set (default: guessed)")
    parser.add_argument("--image-root", type=Path, metavar="DIR", help="folder that file names are relative to")
    parser.add_argument("--category-table", type=Path, metavar="FILE", help="ids and names, where they are kept apart")
    parser.add_argument("--mask-folder", type=Path, metavar="DIR", help="mask PNGs (Open Images)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from segloop.running import run_workflow

    return run_workflow(
        profile=options.profile,
        configfile=options.configfile,
        directory=options.directory,
        arguments=options.snakemake,
        report=options.report,
        left_over_jobs=options.left_over,
        every=options.every,
    )


def _report(options: argparse.Namespace) -> int:
    from segloop.running import build_report

    page = options.output or options.directory / "report.html"
    status = build_report(
        profile=options.profile, configfile=options.configfile, directory=options.directory, output=page
    )
    if not status:
        print(f"report: {page}")
    return status


def _status(options: argparse.Namespace) -> int:
    from segloop.progress import RunFiles, line_of, spent_line, table_of, worker_of
    from segloop.runs import CLAIM

    run = RunFiles(options.directory)
    print(f"{options.directory}: {line_of(run.progress())}")
    print(spent_line(options.directory))
    print(worker_of(options.directory / CLAIM), flush=True)
    print("\n" + table_of(run), end="")
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from segloop.running import cancel_run

    count = cancel_run(options.directory)
    print(f"{count} jobs ended" if count else f"no jobs were left in {options.directory}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    if len(options.runs) < 2 or (options.exact and len(options.runs) != 2):
        raise SegloopError("name two runs" if options.exact else "name two runs or more")
    if not options.exact:
        return _side_by_side(options)
    from segloop.compare import differences

    found = differences(*options.runs)
    print("\n".join(found) or f"{options.runs[0]} and {options.runs[1]} hold the same results")
    return 1 if found else 0


def _side_by_side(options: argparse.Namespace) -> int:
    from segloop.reporting.comparison import HEADS, read_runs, rows_of, shown, write_comparison
    from segloop.reporting.terminal import aligned

    runs = read_runs(options.runs)
    rows = [[shown(head, value) for head, value in zip(HEADS, row, strict=True)] for row in rows_of(runs)]
    # A run a column: there are more numbers than runs.
    print("\n".join(aligned([list(line) for line in zip(HEADS, *rows, strict=True)])))
    if options.output is not None:
        write_comparison(runs, options.output)
        print(f"\npage: {options.output / 'comparison.html'}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    import json

    from segloop.collection.explanation import explain
    from segloop.reporting.explanation_page import explanation_text, write_explanation_page

    found = explain(options.run, options.mask, options.iteration)
    print(json.dumps(found.record(), indent=1) if options.json else explanation_text(found), end="")
    if options.page is not None:
        write_explanation_page(found, options.run, options.page)
        print(f"page: {options.page}", file=sys.stderr)
    return 0


def _forget(options: argparse.Namespace) -> int:
    from labelmelite.forgetting import forget
    from segloop.annotation.people import forget_annotator, read_names

    known = [forget(folder, options.annotator) for folder in (options.answers, options.answers / "labelmelite")]
    if not any(known) or options.annotator in read_names(options.answers):
        forget_annotator(options.answers, options.annotator)
    print(f"the name of annotator {options.annotator} is forgotten; what they answered stays")
    return 0


def _label(options: argparse.Namespace) -> int:
    from labelmelite.command import label

    return label(options)


def _bundle_out(options: argparse.Namespace) -> int:
    from labelmelite.command import bundle_out

    return bundle_out(options)


def _bundle_in(options: argparse.Namespace) -> int:
    from labelmelite.command import bundle_in

    return bundle_in(options)


def _mturk(options: argparse.Namespace) -> int:
    from labelmelite.crowd.mturk_command import mturk

    return mturk(options)


def _simulate(options: argparse.Namespace) -> int:
    from segloop.simulation import command

    if options.table:
        command.table_command(options.run, as_json=options.json)
        return 0
    wanted = command.Wanted(
        world=options.world,
        run=options.run,
        iteration=options.iteration,
        configfile=options.configfile,
        changes=tuple(options.set),
        policies=tuple(options.policy),
        questions=tuple(options.questions),
        precision=tuple(options.precision),
        delta=options.delta,
        t_iou=options.t_iou,
        seeds=(options.seed,) if options.seeds is None else tuple(range(options.seeds)),
    )
    if options.pilot is not None:
        command.pilot_command(wanted, answers=options.pilot, as_json=options.json)
    else:
        command.replay_command(wanted, as_json=options.json, output=options.output)
    return 0


def _export(options: argparse.Namespace) -> int:
    from segloop.data.commands import export_command

    return export_command(options)


def _doctor(options: argparse.Namespace) -> int:
    from segloop.data.commands import doctor_command

    return doctor_command(options)


def _stats(options: argparse.Namespace) -> int:
    from segloop.data.commands import stats_command

    return stats_command(options)
