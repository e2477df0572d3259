"""Read a labelled set in its native format."""

from pathlib import Path
from typing import Any

from segloop.config import LabelledSetConfig
from segloop.data.seed import import_labelled_set
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        import_labelled_set(
            config=LabelledSetConfig.model_validate(snakemake.params.labelled_set),
            data_root=Path(snakemake.params.data_root),
            output=Path(snakemake.output.dataset),
            skipped=Path(snakemake.output.skipped),
            max_skipped=snakemake.params.max_skipped,
        )


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
