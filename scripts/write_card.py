"""Write the data set card of everything collected so far, and the hashes of its content."""

from pathlib import Path
from typing import Any

from segloop.collection.card import CardFiles, write_card
from segloop.collection.summary import versions
from segloop.config import load
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        write_card(
            CardFiles(
                collected=[Path(path) for path in snakemake.input.collected],
                summary=Path(snakemake.input.summary),
                seed_set=Path(snakemake.input.seed_set),
                models=[Path(path) for path in snakemake.input.models],
                certificates=[Path(path) for path in snakemake.input.certificates],
            ),
            load(snakemake.params.config),
            versions(),
            card=Path(snakemake.output.card),
            manifest=Path(snakemake.output.manifest),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
