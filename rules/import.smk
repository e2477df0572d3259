# Import: native data sets become canonical COCO files, the pool becomes shards.
#
# Needs: the data named by `seed_set`, `validation_set` and `pool` (parameters, not inputs, so that a dry run needs no
#        data), or generates scenes when `demo_data` is configured.
# Gives: resources/seed/{train,val}.json, resources/pool/shards/{shard}.parquet, resources/pool/truth.json.


if CONFIG.demo_data:

    localrules:
        generate_demo_data,

    rule generate_demo_data:
        """Generate scenes of textured shapes: seed set, validation set, pool and its hidden truth."""
        output:
            complete="data/demo/complete.json",
        log:
            "logs/generate_demo_data.log",
        benchmark:
            "benchmarks/generate_demo_data.tsv"
        conda:
            "../envs/segloop.yaml"
        params:
            demo=section("demo_data"),
            seed=CONFIG.seed,
        script:
            "../scripts/generate_demo_data.py"


rule import_seed:
    """Read a labelled set (the seed set or the validation set) in its native format."""
    input:
        demo_data,
    output:
        dataset="resources/seed/{part}.json",
        skipped="resources/seed/{part}.skipped.json",
    log:
        "logs/import_seed/{part}.log",
    benchmark:
        "benchmarks/import_seed/{part}.tsv"
    wildcard_constraints:
        part="train|val",
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        labelled_set=labelled_set,
        data_root=CONFIG.data_root,
        max_skipped=CONFIG.max_skipped,
        fingerprint=labelled_set_fingerprint,
    script:
        "../scripts/import_seed.py"


rule shard_pool:
    """Cut the pool, or a sample of it, into shards."""
    input:
        demo_data,
    output:
        shards=directory("resources/pool/shards"),
        manifest="resources/pool/manifest.json",
        skipped="resources/pool/skipped.json",
    log:
        "logs/shard_pool.log",
    benchmark:
        "benchmarks/shard_pool.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        pool=section("pool"),
        data_root=CONFIG.data_root,
        seed=CONFIG.seed,
        max_skipped=CONFIG.max_skipped,
        fingerprint=native(*pool_files()),
    script:
        "../scripts/shard_pool.py"


if CONFIG.pool.truth:

    rule import_truth:
        """Read the hidden truth of the pool; only the oracle, the metrics and the upper bound see it."""
        input:
            demo_data,
            shards="resources/pool/shards",
            seed_set="resources/seed/train.json",
        output:
            truth="resources/pool/truth.json",
            skipped="resources/pool/truth.skipped.json",
        log:
            "logs/import_truth.log",
        benchmark:
            "benchmarks/import_truth.tsv"
        conda:
            "../envs/segloop.yaml"
        resources:
            mem_mb=growing(8000),
            runtime=growing(60),
        params:
            pool=section("pool"),
            data_root=CONFIG.data_root,
            max_skipped=CONFIG.max_skipped,
            fingerprint=native(*CONFIG.pool.truth.files),
        script:
            "../scripts/import_truth.py"
