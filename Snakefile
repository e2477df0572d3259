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
    detector="|".join(DETECTORS),


# Cheap steps: on a cluster they run beside Snakemake, which saves each of them its turn in the queue.
localrules:
    all,
    plot_dataset_sizes,
    plot_run,
    plot_separability,
    record_run,
    summarise_run,
    tabulate_claims,
    tabulate_costs,
    tabulate_run,
    tally_run,


onstart:
    RUN_CLAIM.wait()
    record_start()
    check_detector()
    check_cluster()


onsuccess:
    print(how_to_go_on(), end="")


onerror:
    print(what_slurm_did(log), end="")


rule all:
    """The whole loop, its summary and the figures of its report."""
    default_target: True
    input:
        "results/summary.json",
        "results/run.json",
        report_figures,
        tree_that_waits,
        measured_before_asking,
        retention_records,
