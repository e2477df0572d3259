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
    run.add_argument("snakemake", nargs="*", help="further arguments for Snakemake, after `--`")
    run.set_defaults(command=_run)

    compare = commands.add_parser("compare", help="compare two runs file by file")
    compare.add_argument("--exact", action="store_true", required=True, help="every result must be the same")
    compare.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    compare.set_defaults(command=_compare)
    return parser


def _run(options: argparse.Namespace) -> int:
    from segloop.runs import run_workflow

    return run_workflow(
        profile=options.profile,
        configfile=options.configfile,
        directory=options.directory,
        arguments=options.snakemake,
        report=options.report,
    )


def _compare(options: argparse.Namespace) -> int:
    from segloop.compare import differences

    found = differences(*options.runs)
    print("\n".join(found) or f"{options.runs[0]} and {options.runs[1]} hold the same results")
    return 1 if found else 0
