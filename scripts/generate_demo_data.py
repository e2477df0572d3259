"""Generate the scenes of the demo."""

from pathlib import Path
from typing import Any

from segloop.config import DemoDataConfig
from segloop.data.demo import generate
from segloop.jobs import job


def main(snakemake: Any) -> None:
    with job(snakemake):
        demo = DemoDataConfig.model_validate(snakemake.params.demo)
        generate(Path(snakemake.output.complete).parent, seed=snakemake.params.seed, **demo.model_dump())


if __name__ == "__main__":
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
