# Transfer: what looks like well-predicted objects of another labelled set is collected unasked (docs/transfer.md).
#
# Needs: `transfer` in the configuration, without which none of these rules exist; the seed model, the pool's predictions,
#        index and tree of iteration 1, results/summary.json.
# Gives: resources/transfer/*; results/transfer/iter_1/{predictions,index.zarr,truth_match.parquet} of the labelled set, and
#        for each embedding retrieved.json, verdicts.parquet, collected.json, training_set.json, model, evaluation.json;
#        results/transfer/transfer.{json,html}.

if CONFIG.transfer:

    use rule import_seed as import_transfer with:
        # The other labelled set in its native format.
        output:
            dataset="resources/transfer/labelled.json",
            skipped="resources/transfer/labelled.skipped.json",
        log:
            "logs/import_transfer.log",
        benchmark:
            "benchmarks/import_transfer.tsv"
        params:
            labelled_set=transferred_set(),
            data_root=CONFIG.data_root,
            max_skipped=CONFIG.max_skipped,
            fingerprint=native(*CONFIG.transfer.files),

    rule shard_labelled_set:
        """Cut the images of the labelled set into shards."""
        input:
            labelled_set="resources/transfer/labelled.json",
        output:
            shards=directory("resources/transfer/shards"),
        log:
            "logs/shard_labelled_set.log",
        benchmark:
            "benchmarks/shard_labelled_set.tsv"
        conda:
            "../envs/segloop.yaml"
        params:
            shards=CONFIG.transfer.shards,
        script:
            "../scripts/shard_labelled_set.py"

    use rule predict_shard as predict_transfer with:
        # The model that predicts the pool, on the labelled set.
        input:
            models=predicting_models,
            shards="resources/transfer/shards",
        output:
            predictions=directory(
                "results/transfer/iter_{iteration}/predictions/{shard}.zarr"
            ),
            skipped="results/transfer/iter_{iteration}/predictions/{shard}.skipped.json",
        log:
            "logs/predict_transfer/{iteration}/{shard}.log",
        benchmark:
            "benchmarks/predict_transfer/{iteration}/{shard}.tsv"

    use rule index_predictions as index_transfer with:
        # The same predictions above the score of the index.
        input:
            predictions=predictions_of_labelled_set,
            earlier_predictions=[],
            earlier_verdicts=[],
            earlier_edited=[],
        output:
            index=directory("results/transfer/iter_{iteration}/index.zarr"),
        log:
            "logs/index_transfer/{iteration}.log",
        benchmark:
            "benchmarks/index_transfer/{iteration}.tsv"

    rule match_transfer:
        """Match what was predicted on the labelled set with its masks, whatever their category."""
        input:
            index="results/transfer/iter_{iteration}/index.zarr",
            predictions=predictions_of_labelled_set,
            truth="resources/transfer/labelled.json",
        output:
            truth_match="results/transfer/iter_{iteration}/truth_match.parquet",
        log:
            "logs/match_transfer/{iteration}.log",
        benchmark:
            "benchmarks/match_transfer/{iteration}.tsv"
        conda:
            "../envs/segloop.yaml"
        threads: CONFIG.annotation.workers
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            t_iou=CONFIG.transfer.t_iou,
            workers=CONFIG.annotation.workers,
            any_category=True,
        script:
            "../scripts/match_truth.py"

    use rule partition_predictions as partition_transfer with:
        # The pool's embeddings as they were predicted, because those of the labelled set are, too.
        output:
            partitions=directory(
                "results/transfer/iter_{iteration}/{embedding}/partitions.zarr"
            ),
        log:
            "logs/partition_transfer/{iteration}/{embedding}.log",
        benchmark:
            "benchmarks/partition_transfer/{iteration}/{embedding}.tsv"
        params:
            clustering=embedding_as_predicted,
            seed=CONFIG.seed,
            embedding_file=None,

    rule retrieve_neighbours:
        """Retrieve the nearest neighbours in the pool of what was predicted well on the labelled set."""
        input:
            index="results/transfer/iter_{iteration}/index.zarr",
            predictions=predictions_of_labelled_set,
            truth_match="results/transfer/iter_{iteration}/truth_match.parquet",
            pool_index="results/iter_{iteration}/index.zarr",
            partitions="results/transfer/iter_{iteration}/{embedding}/partitions.zarr",
        output:
            retrieved="results/transfer/iter_{iteration}/{embedding}/retrieved.json",
            accepted="results/transfer/iter_{iteration}/{embedding}/accepted.npy",
            answers="results/transfer/iter_{iteration}/{embedding}/answers.jsonl",
        log:
            "logs/retrieve_neighbours/{iteration}/{embedding}.log",
        benchmark:
            "benchmarks/retrieve_neighbours/{iteration}/{embedding}.tsv"
        conda:
            "../envs/segloop.yaml"
        resources:
            mem_mb=growing(8000),
            runtime=growing(240),
        params:
            transfer=section("transfer"),
            seed=CONFIG.seed,
        script:
            "../scripts/retrieve_neighbours.py"

    if CONFIG.annotation.annotator == "oracle":

        use rule annotate_oracle as annotate_transfer with:
            # What was retrieved is accepted; with annotation.audit.questions the truth answers an audit of it.
            input:
                tree="results/iter_{iteration}/tree.zarr",
                index="results/iter_{iteration}/index.zarr",
                reduced="results/iter_{iteration}/reduced.zarr",
                agreement=[],
                truth_match="results/iter_{iteration}/truth_match.parquet",
                accepted="results/transfer/iter_{iteration}/{embedding}/accepted.npy",
            output:
                answers="results/transfer/iter_{iteration}/{embedding}/answers.parquet",
                verdicts="results/transfer/iter_{iteration}/{embedding}/verdicts.parquet",
                certificates="results/transfer/iter_{iteration}/{embedding}/certificates.json",
                annotators="results/transfer/iter_{iteration}/{embedding}/annotators.json",
            log:
                "logs/annotate_transfer/{iteration}/{embedding}.log",
            benchmark:
                "benchmarks/annotate_transfer/{iteration}/{embedding}.tsv"
            params:
                annotation=accepting_what_was_retrieved,
                iteration=iteration_of,
                seed=CONFIG.seed,

    else:

        use rule annotate_people as annotate_transfer with:
            # What was retrieved is accepted, and nobody is asked.
            input:
                tree="results/iter_{iteration}/tree.zarr",
                index="results/iter_{iteration}/index.zarr",
                reduced="results/iter_{iteration}/reduced.zarr",
                agreement=[],
                recorded="results/transfer/iter_{iteration}/{embedding}/answers.jsonl",
                earlier=[],
                edits=[],
                accepted="results/transfer/iter_{iteration}/{embedding}/accepted.npy",
            output:
                answers="results/transfer/iter_{iteration}/{embedding}/answers.parquet",
                verdicts="results/transfer/iter_{iteration}/{embedding}/verdicts.parquet",
                certificates="results/transfer/iter_{iteration}/{embedding}/certificates.json",
                annotators="results/transfer/iter_{iteration}/{embedding}/annotators.json",
            log:
                "logs/annotate_transfer/{iteration}/{embedding}.log",
            benchmark:
                "benchmarks/annotate_transfer/{iteration}/{embedding}.tsv"
            params:
                annotation=accepting_what_was_retrieved,
                iteration=iteration_of,
                seed=CONFIG.seed,

    use rule collect_masks as collect_transfer with:
        # As in an iteration that asked.
        input:
            index="results/iter_{iteration}/index.zarr",
            predictions=predictions_of,
            verdicts="results/transfer/iter_{iteration}/{embedding}/verdicts.parquet",
            answers="results/transfer/iter_{iteration}/{embedding}/answers.parquet",
            shards="resources/pool/shards",
            seed_set="resources/seed/train.json",
            edited=[],
        output:
            collected="results/transfer/iter_{iteration}/{embedding}/collected.json",
        log:
            "logs/collect_transfer/{iteration}/{embedding}.log",
        benchmark:
            "benchmarks/collect_transfer/{iteration}/{embedding}.tsv"

    use rule merge_training_set as merge_transfer with:
        # The seed set and what was collected unasked; nothing that was asked for.
        input:
            seed_set="resources/seed/train.json",
            collected=["results/transfer/iter_{iteration}/{embedding}/collected.json"],
            predictions=predictions_of,
            verdicts="results/transfer/iter_{iteration}/{embedding}/verdicts.parquet",
            answers="results/transfer/iter_{iteration}/{embedding}/answers.parquet",
        output:
            training_set="results/transfer/iter_{iteration}/{embedding}/training_set.json",
        log:
            "logs/merge_transfer/{iteration}/{embedding}.log",
        benchmark:
            "benchmarks/merge_transfer/{iteration}/{embedding}.tsv"

    if not training_processes():

        localrules:
            train_transfer,

    use rule train_detector as train_transfer with:
        # As many steps as iteration 1 trains, from the same model.
        input:
            training_set="results/transfer/iter_{iteration}/{embedding}/training_set.json",
            previous_model=previous_model(),
            validation_set=measures_while_training("resources/seed/val.json", []),
        output:
            model=directory("results/transfer/iter_{iteration}/{embedding}/model"),
        log:
            "logs/train_transfer/{iteration}/{embedding}.log",
        benchmark:
            "benchmarks/train_transfer/{iteration}/{embedding}.tsv"
        params:
            iteration=iteration_of,
            checkpoints="checkpoints/transfer/iter_{iteration}/{embedding}",
            detector=detector_section,
            prediction=measures_while_training(scoring(), {}),
            training=training,
            fingerprint=weights_fingerprint,
            seed=CONFIG.seed,
            device=CONFIG.device,
            max_skipped=CONFIG.max_skipped,

    use rule evaluate_detector as evaluate_transfer with:
        input:
            model="results/transfer/iter_{iteration}/{embedding}/model",
            validation_set="resources/seed/val.json",
        output:
            evaluation="results/transfer/iter_{iteration}/{embedding}/evaluation.json",
            results="results/transfer/iter_{iteration}/{embedding}/validation_results.json",
        log:
            "logs/evaluate_transfer/{iteration}/{embedding}.log",
        benchmark:
            "benchmarks/evaluate_transfer/{iteration}/{embedding}.tsv"

    rule tabulate_transfer:
        """Draw up what each embedding came to, beside the iterations that asked."""
        input:
            summary="results/summary.json",
            truth_match=(
                "results/iter_1/truth_match.parquet" if CONFIG.pool.truth else []
            ),
            retrieved=of_embeddings("retrieved.json"),
            collected=of_embeddings("collected.json"),
            verdicts=of_embeddings("verdicts.parquet"),
            certificates=of_embeddings("certificates.json"),
            evaluation=of_embeddings("evaluation.json"),
        output:
            table="results/transfer/transfer.json",
            html=report(
                "results/transfer/transfer.html",
                caption="report/transfer.rst",
                category="1 Run",
                labels={"figure": "Transfer at no cost"},
            ),
        log:
            "logs/tabulate_transfer.log",
        benchmark:
            "benchmarks/tabulate_transfer.tsv"
        conda:
            "../envs/segloop.yaml"
        params:
            annotation=section("annotation"),
        script:
            "../scripts/tabulate_transfer.py"

    rule transfer:
        """Everything above."""
        input:
            "results/transfer/transfer.html",
