"""The command `segloop`: what a person types around the workflow; one thin function a subcommand."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from segloop import __version__
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

    status = commands.add_parser("status", help="tell from its files how far a run is and what takes its space")
    status.add_argument("--directory", required=True, type=Path, help="run directory")
    status.set_defaults(command=_status)

    cancel = commands.add_parser("cancel", help="end the SLURM jobs that a killed run left behind")
    cancel.add_argument("--directory", required=True, type=Path, help="run directory")
    cancel.set_defaults(command=_cancel)

    compare = commands.add_parser("compare", help="compare two runs file by file")
    compare.add_argument("--exact", action="store_true", required=True, help="every result must be the same")
    compare.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    compare.set_defaults(command=_compare)
    return parser


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


def _status(options: argparse.Namespace) -> int:
    from segloop.progress import RunFiles, line_of, table_of, worker_of
    from segloop.runs import CLAIM

    run = RunFiles(options.directory)
    print(f"{options.directory}: {line_of(run.progress())}")
    print(worker_of(options.directory / CLAIM), flush=True)
    print("\n" + table_of(run), end="")
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from segloop.running import cancel_run

    count = cancel_run(options.directory)
    print(f"{count} jobs ended" if count else f"no jobs were left in {options.directory}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from segloop.compare import differences

    found = differences(*options.runs)
    print("\n".join(found) or f"{options.runs[0]} and {options.runs[1]} hold the same results")
    return 1 if found else 0
