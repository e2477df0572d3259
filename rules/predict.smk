# Predict and index: masks with scores and embeddings for every image of the pool.
#
# Needs: the models of the iteration before, resources/pool/shards/{shard}.parquet, verdicts of earlier iterations.
# Gives: results/iter_{iteration}/predictions/{shard}.zarr, results/iter_{iteration}/index.zarr.


rule predict_shard:
    """Predict masks on the images of one shard, with each detector."""
    input:
        models=predicting_models,
        shards="resources/pool/shards",
    output:
        predictions=directory("results/iter_{iteration}/predictions/{shard}.zarr"),
        skipped="results/iter_{iteration}/predictions/{shard}.skipped.json",
    log:
        "logs/predict_shard/{iteration}/{shard}.log",
    benchmark:
        "benchmarks/predict_shard/{iteration}/{shard}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.prediction.threads
    resources:
        gpu=gpus(),
        mem_mb=growing(detector_memory()),
        runtime=growing(4 * 60 * len(DETECTORS)),
    params:
        detectors=list(DETECTORS),
        between_detectors=between_detectors(),
        prediction=section("prediction"),
        crop_fingerprint=crop_fingerprint,
        device=CONFIG.device,
        max_skipped=CONFIG.max_skipped,
    script:
        "../scripts/predict_shard.py"


rule index_predictions:
    """List the predictions above the index score and mark duplicates of earlier iterations."""
    input:
        predictions=predictions_of,
        earlier_predictions=earlier_predictions,
        earlier_verdicts=of_earlier_iterations(
            "results/iter_{iteration}/verdicts.parquet"
        ),
        earlier_edited=if_people(
            of_earlier_iterations("results/iter_{iteration}/edited.json")
        ),
    output:
        index=directory("results/iter_{iteration}/index.zarr"),
    log:
        "logs/index_predictions/{iteration}.log",
    benchmark:
        "benchmarks/index_predictions/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        index=section("index"),
        duplicates=section("duplicates"),
    script:
        "../scripts/index_predictions.py"
