"""Write what made the results beside them."""

from pathlib import Path
from typing import Any

from segloop.config import Config
from segloop.jobs import job
from segloop.runs import record_run


def main(snakemake: Any) -> None:
    with job(snakemake):
        record_run(
            config=Config.model_validate(snakemake.params.config),
            output=Path(snakemake.output.run),
            configuration=Path(snakemake.output.configuration),
            lock=Path(snakemake.output.lock),
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
