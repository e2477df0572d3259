# The truth of the pool answers: a simulation.
#
# Needs: results/iter_{iteration}/{tree,index,reduced}.zarr, truth_match.parquet.
# Gives: results/iter_{iteration}/{answers,verdicts}.parquet, {certificates,annotators}.json.


rule annotate_oracle:
    """Ask the policy's questions, answer them from the truth, and judge every prediction."""
    input:
        tree="results/iter_{iteration}/tree.zarr",
        index="results/iter_{iteration}/index.zarr",
        reduced="results/iter_{iteration}/reduced.zarr",
        agreement=if_distilled("results/iter_{iteration}/agreement.npy"),
        truth_match="results/iter_{iteration}/truth_match.parquet",
    output:
        answers="results/iter_{iteration}/answers.parquet",
        verdicts="results/iter_{iteration}/verdicts.parquet",
        certificates="results/iter_{iteration}/certificates.json",
        annotators="results/iter_{iteration}/annotators.json",
    log:
        "logs/annotate_oracle/{iteration}.log",
    benchmark:
        "benchmarks/annotate_oracle/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    threads: worker_cores(CONFIG.annotation.workers)
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        annotation=questions_section(),
        iteration=iteration_of,
        seed=CONFIG.seed,
        probability_file=probability_fingerprint,
    script:
        "../scripts/annotate_oracle.py"
