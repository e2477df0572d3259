# Collect, merge and summarise: accepted masks become training data, each iteration becomes one row of the table.
#
# Needs: results/iter_{iteration}/{index.zarr,verdicts.parquet,answers.parquet}, edited.json where people answer, prediction shards, evaluation.json.
# Gives: results/iter_{iteration}/{collected,training_set,ledger,summary}.json, results/{summary,ledger,run}.json.


rule collect_masks:
    """Write the accepted masks as a COCO file whose annotations say where they come from."""
    input:
        index="results/iter_{iteration}/index.zarr",
        predictions=predictions_of,
        verdicts="results/iter_{iteration}/verdicts.parquet",
        answers="results/iter_{iteration}/answers.parquet",
        shards="resources/pool/shards",
        seed_set="resources/seed/train.json",
        edited=if_people("results/iter_{iteration}/edited.json"),
    output:
        collected="results/iter_{iteration}/collected.json",
    log:
        "logs/collect_masks/{iteration}.log",
    benchmark:
        "benchmarks/collect_masks/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    script:
        "../scripts/collect_masks.py"


rule merge_training_set:
    """Join the seed set, everything collected so far, and the regions to ignore."""
    input:
        seed_set="resources/seed/train.json",
        collected=of_iterations_so_far("results/iter_{iteration}/collected.json"),
        predictions=predictions_of,
        verdicts=if_asked("results/iter_{iteration}/verdicts.parquet"),
        answers=if_asked("results/iter_{iteration}/answers.parquet"),
    output:
        training_set="results/iter_{iteration}/training_set.json",
    log:
        "logs/merge_training_set/{iteration}.log",
    benchmark:
        "benchmarks/merge_training_set/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        ignore_unaccepted=CONFIG.training.ignore_unaccepted,
    script:
        "../scripts/merge_training_set.py"


rule apply_retention:
    """Drop what the configuration does not keep of an iteration that is done: `embeddings` or `low_scores`.

    The stores stay, with their time stamps, so that nothing is made again. All that reads them is an input here.
    """
    input:
        predictions=predictions_of,
        partitions="results/iter_{iteration}/partitions.zarr",
        readers=expand("results/iter_{{iteration}}/{file}", file=READERS),
        figures=ITERATION_FIGURES,
        newest=newest_summary,
    output:
        record="results/iter_{iteration}/dropped_{what}.json",
    log:
        "logs/apply_retention/{iteration}_{what}.log",
    benchmark:
        "benchmarks/apply_retention/{iteration}_{what}.tsv"
    wildcard_constraints:
        what="embeddings|low_scores",
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(4 * 60),
    params:
        score=CONFIG.index.score,
    script:
        "../scripts/apply_retention.py"


rule tally_iteration:
    """Write what people and machines cost in this iteration."""
    input:
        evaluation=of_detector("results/iter_{iteration}/evaluation.json", FIRST),
        models=of_detectors("results/iter_{iteration}/model"),
        index=if_asked("results/iter_{iteration}/index.zarr"),
        answers=if_asked("results/iter_{iteration}/answers.parquet"),
        collected=if_asked("results/iter_{iteration}/collected.json"),
        quality=if_redrawn("results/iter_{iteration}/quality.json"),
        edited=if_asked(*edited_masks()),
    output:
        ledger="results/iter_{iteration}/ledger.json",
    log:
        "logs/tally_iteration/{iteration}.log",
    benchmark:
        "benchmarks/tally_iteration/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        benchmarks=loop_benchmarks,
        prices=section("prices"),
        loop=section("loop"),
    script:
        "../scripts/tally_iteration.py"


checkpoint summarise_iteration:
    """Write one row of the table: questions, masks, precision, average precision, cost.

    A checkpoint, because a stop rule reads it to decide whether there is a next iteration.
    """
    input:
        evaluations=of_detectors("results/iter_{iteration}/evaluation.json"),
        ledger="results/iter_{iteration}/ledger.json",
        index=if_asked("results/iter_{iteration}/index.zarr"),
        answers=if_asked("results/iter_{iteration}/answers.parquet"),
        verdicts=if_asked("results/iter_{iteration}/verdicts.parquet"),
        certificates=if_asked("results/iter_{iteration}/certificates.json"),
        quality=if_redrawn("results/iter_{iteration}/quality.json"),
        truth_match=if_truth("results/iter_{iteration}/truth_match.parquet"),
        truth=if_truth("resources/pool/truth.json"),
        collected=of_iterations_so_far("results/iter_{iteration}/collected.json"),
    output:
        summary="results/iter_{iteration}/summary.json",
    log:
        "logs/summarise_iteration/{iteration}.log",
    benchmark:
        "benchmarks/summarise_iteration/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        detectors=list(DETECTORS),
        annotation=section("annotation"),
    script:
        "../scripts/summarise_iteration.py"


rule summarise_run:
    """Join the rows of all iterations, the control and the upper bound."""
    input:
        summaries=iteration_summaries,
        control=control_evaluations,
        upper_bound=upper_bound_evaluation,
    output:
        summary="results/summary.json",
    log:
        "logs/summarise_run.log",
    benchmark:
        "benchmarks/summarise_run.tsv"
    conda:
        "../envs/segloop.yaml"
    params:
        loop=section("loop"),
    script:
        "../scripts/summarise_run.py"


rule tally_run:
    """Join the ledgers of all iterations."""
    input:
        ledgers=iteration_ledgers,
    output:
        ledger="results/ledger.json",
    log:
        "logs/tally_run.log",
    benchmark:
        "benchmarks/tally_run.tsv"
    conda:
        "../envs/segloop.yaml"
    params:
        prices=section("prices"),
    script:
        "../scripts/tally_run.py"


rule record_run:
    """Write the merged configuration, the installed software and the git revision beside the results."""
    input:
        "results/summary.json",
    output:
        run="results/run.json",
        configuration="results/config.yaml",
        lock="results/requirements.lock",
    log:
        "logs/record_run.log",
    benchmark:
        "benchmarks/record_run.tsv"
    conda:
        "../envs/segloop.yaml"
    params:
        config=CONFIG.model_dump(mode="json"),
    script:
        "../scripts/record_run.py"
