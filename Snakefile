# segloop: collect a very large instance-segmentation data set for little human time.
# The loop is drawn in docs/loop.svg; every key of the configuration is explained in config/README.md.
from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"
include: "rules/import.smk"
include: "rules/train.smk"
include: "rules/predict.smk"
include: "rules/cluster.smk"
include: "rules/separability.smk"
include: "rules/agreement.smk"
include: "rules/annotate.smk"
include: "rules/collect.smk"
include: "rules/report.smk"
include: "rules/simulate.smk"
include: "rules/transfer.smk"


wildcard_constraints:
    iteration=r"\d+",
    shard=r"\d+",
    batch=r"\d+",
    embedding=r"[a-z_]+",


localrules:
    all,
    record_run,
    summarise_iteration,
    summarise_run,
    tally_iteration,
    tally_run,


onstart:
    RUN_CLAIM.wait()


onsuccess:
    print(how_to_go_on(), end="")


rule all:
    """The whole loop, its summary and the figures of its report."""
    default_target: True
    input:
        "results/summary.json",
        "results/run.json",
        report_figures,
        tree_that_waits,
        measured_before_asking,
