"""Cut the images of a labelled set into shards."""

from pathlib import Path
from typing import Any

from segloop.data.pool import shard_labelled_set
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        shard_labelled_set(
            labelled_set=Path(snakemake.input.labelled_set),
            count=snakemake.params.shards,
            output=Path(snakemake.output.shards),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
