"""Join the ledgers of all iterations."""

from pathlib import Path
from typing import Any

from segloop.collection.ledger import tally_run
from segloop.config import PricesConfig
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        tally_run(
            ledgers=[Path(path) for path in snakemake.input.ledgers],
            prices=PricesConfig.model_validate(snakemake.params.prices),
            output=Path(snakemake.output.ledger),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
