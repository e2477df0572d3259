# People answer: their answers are an input of the loop and lie where no rule writes.
#
# Needs: results/iter_{iteration}/{tree,index,reduced}.zarr, {answers_root}/iter_{iteration}/{answers.jsonl,complete.json},
#        edits.jsonl where masks were mended, {answers_root}/gold.json where gold questions were asked, and the answers of
#        earlier iterations, which are known.
#        While complete.json is missing, the plan ends at tree.zarr (see `all`).
# Gives: results/iter_{iteration}/{answers,verdicts}.parquet, {certificates,annotators,edited}.json.


rule annotate_people:
    """Replay people's answers through the policy that asked the questions, and judge every prediction."""
    input:
        tree="results/iter_{iteration}/tree.zarr",
        index="results/iter_{iteration}/index.zarr",
        reduced="results/iter_{iteration}/reduced.zarr",
        agreement=if_distilled("results/iter_{iteration}/agreement.npy"),
        recorded=f"{CONFIG.annotation.answers_root}/iter_{{iteration}}/answers.jsonl",
        earlier=of_earlier_iterations(
            f"{CONFIG.annotation.answers_root}/iter_{{iteration}}/answers.jsonl"
        ),
        edits=recorded_edits,
        complete=f"{CONFIG.annotation.answers_root}/iter_{{iteration}}/complete.json",
    output:
        answers="results/iter_{iteration}/answers.parquet",
        verdicts="results/iter_{iteration}/verdicts.parquet",
        certificates="results/iter_{iteration}/certificates.json",
        annotators="results/iter_{iteration}/annotators.json",
        edited="results/iter_{iteration}/edited.json",
    log:
        "logs/annotate_people/{iteration}.log",
    benchmark:
        "benchmarks/annotate_people/{iteration}.tsv"
    conda:
        "../envs/segloop.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        annotation=questions_section(),
        iteration=iteration_of,
        seed=CONFIG.seed,
        gold=gold_masks(),
        probability_file=probability_fingerprint,
    script:
        "../scripts/annotate_people.py"
