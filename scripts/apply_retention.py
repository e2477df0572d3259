"""Drop what the configuration does not keep of an iteration that is done."""

from pathlib import Path
from typing import Any

from segloop.collection.retention import apply_retention
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        apply_retention(
            what=snakemake.wildcards.what,
            predictions=[Path(path) for path in snakemake.input.predictions],
            partitions=Path(snakemake.input.partitions),
            score=snakemake.params.score,
            output=Path(snakemake.output.record),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
