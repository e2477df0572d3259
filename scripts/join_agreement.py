"""Join the agreements of all shards in the order of the index."""

from pathlib import Path
from typing import Any

from segloop.annotation.probabilities import join_agreement
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        join_agreement(
            parts=[Path(path) for path in snakemake.input.parts],
            index=Path(snakemake.input.index),
            output=Path(snakemake.output.agreement),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
