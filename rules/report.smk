# Report: the figures that `snakemake --report report.html` puts together.
#
# Needs: results/{summary,ledger}.json, and of each iteration the prediction shards, partitions, verdicts, collected masks
#        and truth_match.
# Gives: results/figures/*, results/iter_{iteration}/figures/*.

RUN_FIGURES = [
    "results/figures/table31.html",
    "results/figures/costs.html",
    "results/figures/ap.svg",
    "results/figures/questions.svg",
    "results/figures/dataset_sizes.svg",
]


rule tabulate_run:
    """Draw up this run in the shape of the thesis's Table 3.1."""
    input:
        summary="results/summary.json",
    output:
        csv="results/figures/table31.csv",
        html=report(
            "results/figures/table31.html",
            caption="report/table31.rst",
            category="1 Run",
            labels={"figure": "Table 3.1: questions, masks, average precision"},
        ),
    log:
        "logs/tabulate_run.log",
    benchmark:
        "benchmarks/tabulate_run.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/tabulate_run.py"


rule tabulate_costs:
    """Draw up what the run cost."""
    input:
        ledger="results/ledger.json",
        summary="results/summary.json",
    output:
        html=report(
            "results/figures/costs.html",
            caption="report/costs.rst",
            category="1 Run",
            labels={"figure": "Costs: people, machines, what a mask came to"},
        ),
    log:
        "logs/tabulate_costs.log",
    benchmark:
        "benchmarks/tabulate_costs.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/tabulate_costs.py"


rule plot_ap:
    """Draw average precision over the iterations."""
    input:
        summary="results/summary.json",
    output:
        svg=report(
            "results/figures/ap.svg",
            caption="report/ap.rst",
            category="1 Run",
            labels={"figure": "Average precision by iteration"},
        ),
        png="results/figures/ap.png",
    log:
        "logs/plot_ap.log",
    benchmark:
        "benchmarks/plot_ap.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/plot_ap.py"


rule plot_questions:
    """Draw questions and collected masks over the iterations."""
    input:
        summary="results/summary.json",
    output:
        svg=report(
            "results/figures/questions.svg",
            caption="report/questions.rst",
            category="1 Run",
            labels={"figure": "Questions and masks by iteration"},
        ),
        png="results/figures/questions.png",
    log:
        "logs/plot_questions.log",
    benchmark:
        "benchmarks/plot_questions.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/plot_questions.py"


rule plot_dataset_sizes:
    """Draw what was collected beside other data sets, as in Figure 2-1 of the thesis."""
    input:
        collected=collected_masks,
    output:
        svg=report(
            "results/figures/dataset_sizes.svg",
            caption="report/dataset_sizes.rst",
            category="1 Run",
            labels={"figure": "Figure 2-1: images and masks, beside other data sets"},
        ),
        png="results/figures/dataset_sizes.png",
        csv="results/figures/dataset_sizes.csv",
    log:
        "logs/plot_dataset_sizes.log",
    benchmark:
        "benchmarks/plot_dataset_sizes.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/plot_dataset_sizes.py"


rule plot_neighbours:
    """Draw the nearest neighbours of random queries, as in Figures 3-4 and 3-5 of the thesis."""
    input:
        partitions="results/iter_{iteration}/partitions.zarr",
        predictions=predictions_of,
        shards="resources/pool/shards",
        seed_set="resources/seed/train.json",
    output:
        png=report(
            "results/iter_{iteration}/figures/neighbours.png",
            caption="report/neighbours.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Nearest neighbours"},
        ),
        ids="results/iter_{iteration}/figures/neighbours.json",
    log:
        "logs/plot_neighbours/{iteration}.log",
    benchmark:
        "benchmarks/plot_neighbours/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        report=section("report"),
        seed=CONFIG.seed,
    script:
        "../scripts/plot_neighbours.py"


rule plot_galleries:
    """Draw random accepted, rejected and undecided masks."""
    input:
        predictions=predictions_of,
        verdicts="results/iter_{iteration}/verdicts.parquet",
        shards="resources/pool/shards",
        seed_set="resources/seed/train.json",
        truth_match=if_truth("results/iter_{iteration}/truth_match.parquet"),
    output:
        accepted=report(
            "results/iter_{iteration}/figures/accepted.png",
            caption="report/gallery.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Accepted masks"},
        ),
        rejected=report(
            "results/iter_{iteration}/figures/rejected.png",
            caption="report/gallery.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Rejected masks"},
        ),
        undecided=report(
            "results/iter_{iteration}/figures/undecided.png",
            caption="report/gallery.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Undecided masks"},
        ),
    log:
        "logs/plot_galleries/{iteration}.log",
    benchmark:
        "benchmarks/plot_galleries/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        report=section("report"),
        seed=CONFIG.seed,
    script:
        "../scripts/plot_galleries.py"
