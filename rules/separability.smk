# Separability: what clustering can be expected to do, before anybody is asked.
#
# Needs: results/iter_{iteration}/{partitions,tree,index}.zarr, the prediction shards, and what is known of the truth:
#        truth_match.parquet in simulations, else the answers that people have given so far, if there are any.
# Gives: results/iter_{iteration}/separability.json, results/iter_{iteration}/figures/separability.{svg,png,csv}.


rule measure_separability:
    """Measure how far good and bad masks lie apart, and the shape of the tree."""
    input:
        partitions="results/iter_{iteration}/partitions.zarr",
        tree="results/iter_{iteration}/tree.zarr",
        index="results/iter_{iteration}/index.zarr",
        predictions=predictions_of,
        truth_match=if_truth("results/iter_{iteration}/truth_match.parquet"),
        recorded=recorded_answers,
    output:
        separability="results/iter_{iteration}/separability.json",
    log:
        "logs/measure_separability/{iteration}.log",
    benchmark:
        "benchmarks/measure_separability/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.clustering.threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        t_iou=CONFIG.annotation.t_iou,
        matching=CONFIG.annotation.matching,
        duplicates_iou=CONFIG.duplicates.iou,
        threads=CONFIG.clustering.threads,
        seed=CONFIG.seed,
    script:
        "../scripts/measure_separability.py"


rule plot_separability:
    """Draw how far good and bad masks lie apart, and the shape of the tree."""
    input:
        separability="results/iter_{iteration}/separability.json",
        seed_set="resources/seed/train.json",
    output:
        svg=report(
            "results/iter_{iteration}/figures/separability.svg",
            caption="report/separability.rst",
            category="2 Masks",
            subcategory="iteration {iteration}",
            labels={"figure": "Separability"},
        ),
        png="results/iter_{iteration}/figures/separability.png",
        csv="results/iter_{iteration}/figures/separability.csv",
    log:
        "logs/plot_separability/{iteration}.log",
    benchmark:
        "benchmarks/plot_separability/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    script:
        "../scripts/plot_separability.py"
