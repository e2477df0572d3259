# Train and evaluate: the detectors of each iteration, the first of them for the control and for the upper bound.
#
# Needs: results/iter_{iteration}/training_set.json, the model of the iteration before, resources/seed/val.json.
# Gives: results/iter_{iteration}/{model,evaluation.json}; the same below results/control and results/upper_bound. Of
#        several detectors, each in results/iter_{iteration}/detector_{name}/.


if not training_processes():

    # They submit a job of their own and follow it (training.launcher: submitit).
    localrules:
        train_detector,
        train_control,
        train_upper_bound,


rule train_detector:
    """Train the detector of one iteration, going on from the previous weights or from scratch."""
    input:
        training_set="results/iter_{iteration}/training_set.json",
        previous_model=previous_model(),
        validation_set=measures_while_training("resources/seed/val.json", []),
    output:
        model=directory(of_detector("results/iter_{iteration}/model")),
    log:
        of_detector("logs/train_detector/{iteration}.log"),
    benchmark:
        of_detector("benchmarks/train_detector/{iteration}.tsv")
    conda:
        "../envs/segloop.yaml"
    threads: max(1, CONFIG.training.threads * training_processes())
    resources:
        gpu=gpus() * training_processes(),
        mem_mb=growing(detector_memory() * max(1, training_processes())),
        runtime=24 * 60,  # no more with a further attempt, which goes on from the last checkpoint
    params:
        iteration=iteration_of,
        checkpoints=of_detector("checkpoints/iter_{iteration}"),
        detector=detector_section,
        prediction=measures_while_training(scoring(), {}),
        training=training,
        fingerprint=weights_fingerprint,
        seed=CONFIG.seed,
        device=CONFIG.device,
        max_skipped=CONFIG.max_skipped,
    script:
        "../scripts/train_detector.py"


rule evaluate_detector:
    """Measure COCO average precision on the validation set."""
    input:
        model=of_detector("results/iter_{iteration}/model"),
        validation_set="resources/seed/val.json",
    output:
        evaluation=of_detector("results/iter_{iteration}/evaluation.json"),
        results=of_detector("results/iter_{iteration}/validation_results.json"),
    log:
        of_detector("logs/evaluate_detector/{iteration}.log"),
    benchmark:
        of_detector("benchmarks/evaluate_detector/{iteration}.tsv")
    conda:
        "../envs/segloop.yaml"
    threads: CONFIG.prediction.threads
    resources:
        gpu=gpus(),
        mem_mb=growing(detector_memory()),
        runtime=growing(4 * 60),
    params:
        prediction=scoring(),
        device=CONFIG.device,
        max_skipped=CONFIG.max_skipped,
    script:
        "../scripts/evaluate_detector.py"


if CONFIG.loop.control:

    use rule train_detector as train_control with:
        # The same further steps on the seed set alone: what the collected masks add is the difference to this.
        input:
            training_set="results/iter_0/training_set.json",
            previous_model=previous_model("results/control"),
            validation_set=measures_while_training("resources/seed/val.json", []),
        output:
            model=directory("results/control/iter_{iteration}/model"),
        log:
            "logs/train_control/{iteration}.log",
        benchmark:
            "benchmarks/train_control/{iteration}.tsv"
        params:
            iteration=iteration_of,
            checkpoints="checkpoints/control/iter_{iteration}",
            detector=detector_section,
            prediction=measures_while_training(scoring(), {}),
            training=training,
            fingerprint=weights_fingerprint,
            seed=CONFIG.seed,
            device=CONFIG.device,
            max_skipped=CONFIG.max_skipped,

    use rule evaluate_detector as evaluate_control with:
        input:
            model="results/control/iter_{iteration}/model",
            validation_set="resources/seed/val.json",
        output:
            evaluation="results/control/iter_{iteration}/evaluation.json",
            results="results/control/iter_{iteration}/validation_results.json",
        log:
            "logs/evaluate_control/{iteration}.log",
        benchmark:
            "benchmarks/evaluate_control/{iteration}.tsv"


if CONFIG.loop.upper_bound:

    rule merge_upper_bound:
        """Join the seed set and the whole truth of the pool."""
        input:
            seed_set="resources/seed/train.json",
            truth="resources/pool/truth.json",
            shards="resources/pool/shards",
        output:
            training_set="results/upper_bound/training_set.json",
        log:
            "logs/merge_upper_bound.log",
        benchmark:
            "benchmarks/merge_upper_bound.tsv"
        conda:
            "../envs/segloop.yaml"
        resources:
            mem_mb=growing(8000),
            runtime=growing(60),
        script:
            "../scripts/merge_upper_bound.py"

    use rule train_detector as train_upper_bound with:
        # As many steps as all later iterations together, from the seed model, on the seed set and all truth.
        input:
            training_set="results/upper_bound/training_set.json",
            previous_model=model_before(1, "results", DETECTORS[FIRST]),
            validation_set=measures_while_training("resources/seed/val.json", []),
        output:
            model=directory("results/upper_bound/model"),
        log:
            "logs/train_upper_bound.log",
        benchmark:
            "benchmarks/train_upper_bound.tsv"
        params:
            iteration=1,
            checkpoints="checkpoints/upper_bound",
            detector=detector_section,
            prediction=measures_while_training(scoring(), {}),
            training=upper_bound_training,
            fingerprint=None,
            seed=CONFIG.seed,
            device=CONFIG.device,
            max_skipped=CONFIG.max_skipped,

    use rule evaluate_detector as evaluate_upper_bound with:
        input:
            model="results/upper_bound/model",
            validation_set="resources/seed/val.json",
        output:
            evaluation="results/upper_bound/evaluation.json",
            results="results/upper_bound/validation_results.json",
        log:
            "logs/evaluate_upper_bound.log",
        benchmark:
            "benchmarks/evaluate_upper_bound.tsv"
