# Simulate: other policies on the same predictions, answered from the truth, to see what each would have cost.
#
# Needs: results/iter_{iteration}/{index,tree,reduced}.zarr, truth_match.parquet, and simulate.policies in the
#        configuration, without which nothing is replayed.
# Gives: results/iter_{iteration}/figures/cost_curves.{svg,png,csv}, simulation.md, simulation.json.

if CONFIG.simulate.policies:
    ITERATION_FIGURES += ["results/iter_{iteration}/figures/cost_curves.svg"]


rule simulate_policies:
    """Replay policies over several seeds and draw recall and precision against questions."""
    input:
        index="results/iter_{iteration}/index.zarr",
        tree="results/iter_{iteration}/tree.zarr",
        reduced="results/iter_{iteration}/reduced.zarr",
        agreement=(
            "results/iter_{iteration}/agreement.npy"
            if "distillation" in CONFIG.simulate.policies
            else []
        ),
        truth_match="results/iter_{iteration}/truth_match.parquet",
    output:
        svg=report(
            "results/iter_{iteration}/figures/cost_curves.svg",
            caption="report/cost_curves.rst",
            category="3 Questions",
            subcategory="iteration {iteration}",
            labels={"figure": "Cost curves of policies"},
        ),
        png="results/iter_{iteration}/figures/cost_curves.png",
        csv="results/iter_{iteration}/figures/cost_curves.csv",
        table="results/iter_{iteration}/figures/simulation.md",
        runs="results/iter_{iteration}/figures/simulation.json",
    log:
        "logs/simulate_policies/{iteration}.log",
    benchmark:
        "benchmarks/simulate_policies/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(4 * 60),
    params:
        annotation=questions_section(),
        policies=CONFIG.simulate.policies,
        seeds=CONFIG.simulate.seeds,
        iteration=iteration_of,
        probability_file=probability_fingerprint,
    script:
        "../scripts/simulate_policies.py"
