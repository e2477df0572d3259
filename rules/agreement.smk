# Agreement: how well predictions on transformed copies of an image agree, for the policy `distillation` alone.
#
# Needs: the models of the iteration before, resources/pool/shards/{shard}.parquet,
#        results/iter_{iteration}/predictions/{shard}.zarr and index.zarr.
# Gives: results/iter_{iteration}/agreement/{shard}.npy, results/iter_{iteration}/agreement.npy.


rule measure_agreement:
    """Look for the indexed predictions of one shard again in transformed copies of its images."""
    input:
        models=predicting_models,
        shards="resources/pool/shards",
        index="results/iter_{iteration}/index.zarr",
        predictions="results/iter_{iteration}/predictions/{shard}.zarr",
    output:
        agreement="results/iter_{iteration}/agreement/{shard}.npy",
    log:
        "logs/measure_agreement/{iteration}/{shard}.log",
    benchmark:
        "benchmarks/measure_agreement/{iteration}/{shard}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.prediction.threads
    resources:
        gpu=gpus(),
        mem_mb=growing(detector_memory()),
        runtime=growing(12 * 60 * len(DETECTORS)),
    params:
        detectors=list(DETECTORS),
        prediction=scoring(),
        distillation=section("annotation")["distillation"],
        device=CONFIG.device,
    script:
        "../scripts/measure_agreement.py"


rule join_agreement:
    """Join the agreements of all shards in the order of the index."""
    input:
        parts=lambda wildcards: shard_files(
            "results/iter_{iteration}/agreement/{shard}.npy", wildcards.iteration
        ),
        index="results/iter_{iteration}/index.zarr",
    output:
        agreement="results/iter_{iteration}/agreement.npy",
    log:
        "logs/join_agreement/{iteration}.log",
    benchmark:
        "benchmarks/join_agreement/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    script:
        "../scripts/join_agreement.py"
