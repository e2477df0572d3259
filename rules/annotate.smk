# Annotate: questions about a few masks of each cluster, answers, verdicts about all.
#
# Needs: results/iter_{iteration}/{tree,index,reduced}.zarr, and who answers: the pool's truth (oracle.smk) or people (people.smk).
# Gives: results/iter_{iteration}/{answers,verdicts}.parquet, {certificates,annotators}.json, and truth_match.parquet where the pool's truth is known;
#        edited.json where people answer; quality.json and quality_sample.json where masks are redrawn (annotation.audit.redraws).


if CONFIG.pool.truth:

    rule match_truth:
        """Match each indexed prediction with the hidden truth of its image."""
        input:
            index="results/iter_{iteration}/index.zarr",
            predictions=predictions_of,
            truth="resources/pool/truth.json",
        output:
            truth_match="results/iter_{iteration}/truth_match.parquet",
        log:
            "logs/match_truth/{iteration}.log",
        benchmark:
            "benchmarks/match_truth/{iteration}.tsv"
        conda:
            "../envs/segloop.yaml"
        threads: worker_cores(CONFIG.annotation.workers)
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            t_iou=CONFIG.annotation.t_iou,
            workers=CONFIG.annotation.workers,
        script:
            "../scripts/match_truth.py"


include: f"annotate_{CONFIG.annotation.annotator}.smk"


rule measure_quality:
    """Draw accepted masks at random and compare them with what was redrawn of them."""
    input:
        index="results/iter_{iteration}/index.zarr",
        predictions=predictions_of,
        verdicts="results/iter_{iteration}/verdicts.parquet",
        seed_set="resources/seed/train.json",
        truth_match=if_oracle("results/iter_{iteration}/truth_match.parquet"),
        recorded=recorded_redraws,
        edited=if_people("results/iter_{iteration}/edited.json"),
    output:
        quality="results/iter_{iteration}/quality.json",
        sample="results/iter_{iteration}/quality_sample.json",
    log:
        "logs/measure_quality/{iteration}.log",
    benchmark:
        "benchmarks/measure_quality/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        annotation=section("annotation"),
        iteration=iteration_of,
        seed=CONFIG.seed,
    script:
        "../scripts/measure_quality.py"
