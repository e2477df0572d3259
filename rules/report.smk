# Report: the figures that `snakemake --report report.html` puts together.
#
# Needs: results/{summary,ledger}.json, and of each iteration the prediction shards, partitions, verdicts, collected masks
#        and truth_match.
# Gives: results/figures/*, results/census.json, results/iter_{iteration}/{figures/*,card.md,manifest.json}. Figures come
#        as SVG and PNG, their numbers as CSV.

RUN_FIGURES = [
    "results/figures/table31.html",
    "results/figures/costs.html",
    "results/figures/ap.svg",
    "results/figures/claims.html",
    "results/figures/bias.svg",
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


rule plot_run:
    """Draw what the detector gained, iteration by iteration, and what that took."""
    input:
        summary="results/summary.json",
    output:
        ap=report(
            "results/figures/ap.svg",
            caption="report/ap.rst",
            category="1 Run",
            labels={"figure": "Average precision by iteration"},
        ),
        ap_png="results/figures/ap.png",
        ap_csv="results/figures/ap.csv",
        questions=report(
            "results/figures/questions.svg",
            caption="report/questions.rst",
            category="1 Run",
            labels={"figure": "Questions and masks by iteration"},
        ),
        questions_png="results/figures/questions.png",
        questions_csv="results/figures/questions.csv",
        ap_by_masks=report(
            "results/figures/ap_by_masks.svg",
            caption="report/ap_by_masks.rst",
            category="1 Run",
            labels={"figure": "Average precision by collected masks, and by category"},
        ),
        ap_by_masks_png="results/figures/ap_by_masks.png",
        ap_by_masks_csv="results/figures/ap_by_masks.csv",
        effort=report(
            "results/figures/effort.svg",
            caption="report/effort.rst",
            category="1 Run",
            labels={"figure": "Masks, questions, hours, dollars by iteration"},
        ),
        effort_png="results/figures/effort.png",
        effort_csv="results/figures/effort.csv",
    log:
        "logs/plot_run.log",
    benchmark:
        "benchmarks/plot_run.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/plot_run.py"


rule tabulate_claims:
    """Draw up what audits showed, and what the run took of machines."""
    input:
        summary="results/summary.json",
        ledger="results/ledger.json",
        certificates=of_asked_iterations("results/iter_{iteration}/certificates.json"),
    output:
        claims=report(
            "results/figures/claims.html",
            caption="report/claims.rst",
            category="1 Run",
            labels={"figure": "Certificates and their audits"},
        ),
        machines=report(
            "results/figures/machines.html",
            caption="report/machines.rst",
            category="1 Run",
            labels={"figure": "Space, hours, slowest jobs"},
        ),
    log:
        "logs/tabulate_claims.log",
    benchmark:
        "benchmarks/tabulate_claims.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/tabulate_claims.py"


rule plot_census:
    """Count what was collected against what the pool holds, and draw bias and coverage."""
    input:
        indexes=of_asked_iterations("results/iter_{iteration}/index.zarr"),
        collected=of_asked_iterations("results/iter_{iteration}/collected.json"),
        shards="resources/pool/shards",
        seed_set="resources/seed/train.json",
        truth="resources/pool/truth.json" if CONFIG.pool.truth else [],
    output:
        census="results/census.json",
        bias=report(
            "results/figures/bias.svg",
            caption="report/bias.rst",
            category="1 Run",
            labels={
                "figure": "What was collected, by category, size, position, score"
            },
        ),
        bias_png="results/figures/bias.png",
        bias_csv="results/figures/bias.csv",
        coverage=report(
            "results/figures/coverage.svg",
            caption="report/coverage.rst",
            category="1 Run",
            labels={"figure": "Coverage of the pool"},
        ),
        coverage_png="results/figures/coverage.png",
        coverage_csv="results/figures/coverage.csv",
    log:
        "logs/plot_census.log",
    benchmark:
        "benchmarks/plot_census.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    script:
        "../scripts/plot_census.py"


rule plot_masks:
    """Draw the masks of an iteration: galleries, neighbours, clusters, their map, and what scores mean.

    One job for all of these figures: each would read the same stores, and wait for its own turn in the queue.
    """
    input:
        predictions=predictions_of,
        partitions="results/iter_{iteration}/partitions.zarr",
        reduced="results/iter_{iteration}/reduced.zarr",
        tree="results/iter_{iteration}/tree.zarr",
        index="results/iter_{iteration}/index.zarr",
        answers="results/iter_{iteration}/answers.parquet",
        verdicts="results/iter_{iteration}/verdicts.parquet",
        truth_match=if_truth("results/iter_{iteration}/truth_match.parquet"),
        shards="resources/pool/shards",
        seed_set="resources/seed/train.json",
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
        neighbours=report(
            "results/iter_{iteration}/figures/neighbours.png",
            caption="report/neighbours.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Nearest neighbours"},
        ),
        neighbours_ids="results/iter_{iteration}/figures/neighbours.json",
        purity=report(
            "results/iter_{iteration}/figures/clusters.png",
            caption="report/clusters.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Most and least pure clusters"},
        ),
        history=report(
            "results/iter_{iteration}/figures/splits.png",
            caption="report/splits.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "How a cluster was split"},
        ),
        history_svg="results/iter_{iteration}/figures/splits.svg",
        categories=report(
            "results/iter_{iteration}/figures/categories.png",
            caption="report/categories.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Accepted, rejected, borderline masks by category"},
        ),
        map=report(
            "results/iter_{iteration}/figures/map.html",
            caption="report/map.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Embedding map"},
        ),
        map_csv="results/iter_{iteration}/figures/map.csv",
        calibration=report(
            "results/iter_{iteration}/figures/calibration.svg",
            caption="report/calibration.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Calibration of score and predicted IoU"},
        ),
        calibration_png="results/iter_{iteration}/figures/calibration.png",
        calibration_csv="results/iter_{iteration}/figures/calibration.csv",
    log:
        "logs/plot_masks/{iteration}.log",
    benchmark:
        "benchmarks/plot_masks/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        report=section("report"),
        t_iou=CONFIG.annotation.t_iou,
        matching=CONFIG.annotation.matching,
        seed=CONFIG.seed,
    script:
        "../scripts/plot_masks.py"


rule write_card:
    """Write the data set card of everything collected so far, and the hashes of its content."""
    input:
        collected=of_iterations_so_far("results/iter_{iteration}/collected.json"),
        certificates=of_iterations_so_far("results/iter_{iteration}/certificates.json"),
        summary="results/iter_{iteration}/summary.json",
        seed_set="resources/seed/train.json",
        models=predicting_models,
    output:
        card="results/iter_{iteration}/card.md",
        manifest="results/iter_{iteration}/manifest.json",
    log:
        "logs/write_card/{iteration}.log",
    benchmark:
        "benchmarks/write_card/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        config=CONFIG.model_dump(mode="json"),
    script:
        "../scripts/write_card.py"


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
