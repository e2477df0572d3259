# Cluster: one tree over all predictions of an iteration that nobody has judged yet.
#
# Needs: results/iter_{iteration}/index.zarr and the prediction shards (embeddings).
# Gives: results/iter_{iteration}/tree.zarr, whose nodes are contiguous ranges of the order of its leaves, and
#        reduced.zarr: the leading principal components of its leaves, which policies learn from.


rule partition_predictions:
    """Sort the embeddings by partition: a category, or a part of one that is too large for an exact tree."""
    input:
        index="results/iter_{iteration}/index.zarr",
        predictions=predictions_of,
    output:
        partitions=directory("results/iter_{iteration}/partitions.zarr"),
    log:
        "logs/partition_predictions/{iteration}.log",
    benchmark:
        "benchmarks/partition_predictions/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.clustering.threads
    resources:
        mem_mb=to_partition("mem_mb"),
        runtime=to_partition("runtime"),
    params:
        clustering=section("clustering"),
        seed=CONFIG.seed,
        embedding_file=embedding_fingerprint,
    script:
        "../scripts/partition_predictions.py"


rule link_partitions:
    """Build the trees of one batch of partitions; each job finds its own partitions at run time."""
    input:
        partitions="results/iter_{iteration}/partitions.zarr",
    output:
        links=directory("results/iter_{iteration}/links/{batch}.zarr"),
    log:
        "logs/link_partitions/{iteration}/{batch}.log",
    benchmark:
        "benchmarks/link_partitions/{iteration}/{batch}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: worker_cores(CONFIG.clustering.workers, CONFIG.clustering.threads)
    resources:
        mem_mb=to_link("mem_mb"),
        runtime=to_link("runtime"),
    params:
        clustering=section("clustering"),
    script:
        "../scripts/link_partitions.py"


rule join_trees:
    """Join the trees of all partitions below a top tree."""
    input:
        partitions="results/iter_{iteration}/partitions.zarr",
        links=links_of,
    output:
        tree=directory("results/iter_{iteration}/tree.zarr"),
    log:
        "logs/join_trees/{iteration}.log",
    benchmark:
        "benchmarks/join_trees/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.clustering.threads
    resources:
        mem_mb=to_join("mem_mb"),
        runtime=to_join("runtime"),
    params:
        clustering=section("clustering"),
    script:
        "../scripts/join_trees.py"


rule reduce_embeddings:
    """Project the embeddings on their leading principal axes."""
    input:
        partitions="results/iter_{iteration}/partitions.zarr",
    output:
        reduced=directory("results/iter_{iteration}/reduced.zarr"),
    log:
        "logs/reduce_embeddings/{iteration}.log",
    benchmark:
        "benchmarks/reduce_embeddings/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.clustering.threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        components=CONFIG.annotation.components,
        numerical_threads=CONFIG.clustering.threads,
        seed=CONFIG.seed,
    script:
        "../scripts/reduce_embeddings.py"
