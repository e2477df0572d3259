# Functions that rules use: three to five lines each, calling the tested package.
import sys
from functools import cache
from itertools import takewhile
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from segloop.collection.stopping import stop_reason
from segloop.config import load
from segloop.errors import SegloopError
from segloop.files import fingerprint, read_json
from segloop.runs import RunClaim, asking, record_start as record_start_of, redrawing

CONFIG = load(config)
# By name; files that each of them has lie where `of_detector` says. The first one is the run's own: its average precision
# is that of the run, and the control, the upper bound and the transfer train it alone.
DETECTORS = CONFIG.each_detector
FIRST = next(iter(DETECTORS))
SHARDS = range(CONFIG.pool.shards)
BATCHES = range(CONFIG.clustering.batches)
RETENTION = ["embeddings", "low_scores"]
# What reads the embeddings or the low-scored predictions of an iteration, by what it writes; figures come on top.
READERS = ["tree.zarr", "reduced.zarr", "separability.json", "training_set.json"]
ITERATION_FIGURES = [
    "results/iter_{iteration}/figures/accepted.png",
    "results/iter_{iteration}/figures/separability.svg",
    "results/iter_{iteration}/card.md",
]

# Held until this process ends; the rules run only once it is.
RUN_CLAIM = RunClaim(Path.cwd()) if workflow.is_main_process else None


def section(name):
    """Return one section of the configuration as plain values, for `params`."""
    value = getattr(CONFIG, name)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def of_detector(path, name="{detector}"):
    """Return where a file lies that each detector has; a single one needs no folder of its own."""
    return CONFIG.of_detector(path, name)


def of_detectors(path):
    """Return an input function: a file of an iteration of each detector, in their order."""
    return lambda wildcards: expand(
        [of_detector(path, name) for name in DETECTORS], iteration=wildcards.iteration
    )


def detector_of(wildcards):
    """Return the configuration of the detector that a job is about; the first one where a path names none."""
    return DETECTORS[wildcards.get("detector", FIRST)]


def detector_section(wildcards):
    """Return what the detector of a job is, as plain values."""
    return detector_of(wildcards).detector.model_dump(mode="json")


def scoring():
    """Return of the prediction section what boxes, masks and scores depend on: not which embeddings are stored."""
    return CONFIG.prediction.model_dump(mode="json", exclude={"embeddings", "crop"})


def between_detectors():
    """Return the mask IoU from which predictions of two detectors are one; none where there is one detector."""
    return CONFIG.duplicates.iou if len(DETECTORS) > 1 else None


def crop_fingerprint(wildcards):
    """Return the fingerprints of the files of the user's own network of crops, if it is wanted."""
    if "crop" not in CONFIG.prediction.embeddings:
        return None
    crop = CONFIG.prediction.crop
    return [fingerprint(path) for path in (crop.model, crop.weights) if path]


def questions_section():
    """Return the annotation section without what redraws need, which change no answer and no verdict."""
    apart = {"audit": {"redraws"}, "oracle": {"redraw_seconds"}}
    return CONFIG.annotation.model_dump(mode="json", exclude=apart)


def demo_data(wildcards):
    """Generated data is an input; everybody else's data is a parameter with a fingerprint (contract 8)."""
    return ["data/demo/complete.json"] if CONFIG.demo_data else []


def native(*paths):
    """Return what changes when native data changes; nothing for generated data, which is an input."""
    if CONFIG.demo_data:
        return None
    return [fingerprint(Path(CONFIG.data_root) / path) for path in paths if path]


def shard_files(pattern, iteration):
    """Return one path a shard; `pattern` holds {iteration} and {shard}."""
    return expand(pattern, iteration=iteration, shard=SHARDS)


def predictions_of(wildcards):
    """Return the prediction shards of an iteration; iteration 0 predicts nothing."""
    iteration = int(wildcards.iteration)
    return (
        shard_files("results/iter_{iteration}/predictions/{shard}.zarr", iteration)
        if iteration
        else []
    )


def earlier_predictions(wildcards):
    """Return the prediction shards of all earlier iterations, iteration by iteration."""
    return shard_files(
        "results/iter_{iteration}/predictions/{shard}.zarr",
        range(1, int(wildcards.iteration)),
    )


def of_earlier_iterations(pattern):
    """Return an input function: `pattern` for the iterations before this one that asked questions."""
    return lambda wildcards: expand(
        pattern, iteration=range(1, int(wildcards.iteration))
    )


def of_iterations_so_far(pattern):
    """Return an input function: `pattern` for the iterations up to this one that asked questions."""
    return lambda wildcards: expand(
        pattern, iteration=range(1, int(wildcards.iteration) + 1)
    )


def of_asked_iterations(pattern):
    """Return an input function: `pattern` for all iterations of the run that asked questions."""
    return lambda wildcards: expand(pattern, iteration=range(1, last_iteration() + 1))


def if_asked(*paths):
    """Return an input function: nothing for iteration 0, which asks no questions."""
    return lambda wildcards: (
        expand(paths, iteration=wildcards.iteration) if int(wildcards.iteration) else []
    )


def previous_model(prefix="results"):
    """Return an input function: the model that training starts from, if it starts from one."""
    return lambda wildcards: model_before(
        int(wildcards.iteration), prefix, detector_of(wildcards)
    )


def model_before(iteration, prefix, detector):
    """Return a detector's model of the iteration before; iteration 0 and training from scratch have none."""
    if iteration == 0 or detector.training.initialise == "scratch":
        return []
    if iteration > 1 and prefix != "results":
        return f"{prefix}/iter_{iteration - 1}/model"
    return of_detector(f"results/iter_{iteration - 1}/model", detector.name)


def predicting_models(wildcards):
    """Return the models of the iteration before, which predict in this one, in the order of the detectors."""
    before = int(wildcards.iteration) - 1
    return [of_detector(f"results/iter_{before}/model", name) for name in DETECTORS]


def gpus():
    """Return the number of GPUs a detector job asks for."""
    return 0 if CONFIG.device == "cpu" else 1


def detector_memory():
    """Return the megabytes that a detector job asks for at its first attempt."""
    return 16_000 if gpus() else 4000


def wanted_iterations():
    """Return the last iteration that is wanted for now: `loop.until`, or all."""
    return min(
        CONFIG.loop.iterations if CONFIG.loop.until is None else CONFIG.loop.until,
        CONFIG.loop.iterations,
    )


def answered_iterations():
    """Return the last iteration whose questions are or can be answered: all, unless people have not finished one."""
    for iteration in range(1, wanted_iterations() + 1):
        complete = (
            Path(CONFIG.annotation.answers_root) / f"iter_{iteration}" / "complete.json"
        )
        if CONFIG.annotation.annotator == "people" and not complete.exists():
            return iteration - 1
    return wanted_iterations()


def last_iteration():
    """Return the last iteration; with a stop rule this asks for one iteration more at a time."""
    if CONFIG.loop.stop == "never":
        return answered_iterations()
    summaries = []
    for iteration in range(answered_iterations() + 1):
        summaries.append(
            read_json(
                checkpoints.summarise_iteration.get(iteration=iteration).output.summary
            )
        )
        if stop_reason(summaries, CONFIG.loop):
            break
    return iteration


def waits_for_answers(last):
    """Tell whether the run cannot go on after iteration `last` because people have not answered yet."""
    return last == answered_iterations() < wanted_iterations()


def tree_that_waits(wildcards):
    """Return what a policy needs of the iteration that people are to be asked about, if there is one."""
    last = last_iteration()
    needed = ["tree.zarr", "reduced.zarr", if_distilled("agreement.npy")]
    return (
        [f"results/iter_{last + 1}/{name}" for name in needed if name]
        if waits_for_answers(last)
        else []
    )


def measured_before_asking(wildcards):
    """Return how separable the predictions are that people are to be asked about, if there are any."""
    last = last_iteration()
    path = f"results/iter_{last + 1}/figures/separability.svg"
    return [path] if waits_for_answers(last) else []


def recorded_answers(wildcards):
    """Return people's answers about this iteration so far, if there are any."""
    path = (
        Path(CONFIG.annotation.answers_root)
        / f"iter_{wildcards.iteration}"
        / "answers.jsonl"
    )
    return (
        str(path) if CONFIG.annotation.annotator == "people" and path.exists() else []
    )


def recorded_redraws(wildcards):
    """Return the masks that people have redrawn in this iteration so far, if there are any."""
    path = (
        Path(CONFIG.annotation.answers_root)
        / f"iter_{wildcards.iteration}"
        / "redraws.jsonl"
    )
    return (
        str(path) if CONFIG.annotation.annotator == "people" and path.exists() else []
    )


def recorded_edits(wildcards):
    """Return the masks that people have mended in this iteration, if there are any."""
    path = (
        Path(CONFIG.annotation.answers_root)
        / f"iter_{wildcards.iteration}"
        / "edits.jsonl"
    )
    return str(path) if path.exists() else []


def if_redrawn(path):
    """Return an input function: nothing for iteration 0, and nothing unless masks are redrawn."""
    return if_asked(path) if CONFIG.annotation.audit.redraws else []


def iteration_summaries(wildcards):
    """Return the summaries of all iterations of the run."""
    return expand(
        "results/iter_{iteration}/summary.json", iteration=range(last_iteration() + 1)
    )


def collected_masks(wildcards):
    """Return what each iteration of the run has collected."""
    return expand(
        "results/iter_{iteration}/collected.json",
        iteration=range(1, last_iteration() + 1),
    )


def control_evaluations(wildcards):
    """Return the evaluations of the control, if there is one."""
    iterations = range(1, last_iteration() + 1) if CONFIG.loop.control else []
    return what_is_due(
        expand("results/control/iter_{iteration}/evaluation.json", iteration=iterations)
    )


def what_is_due(comparisons):
    """Return these files; of a run that goes on later, those that are there: comparisons are trained at the end."""
    if wanted_iterations() == CONFIG.loop.iterations:
        return comparisons
    return list(takewhile(lambda path: Path(path).exists(), comparisons))


def upper_bound_evaluation(wildcards):
    """Return the evaluation of the upper bound, if there is one."""
    return (
        what_is_due(["results/upper_bound/evaluation.json"])
        if CONFIG.loop.upper_bound
        else []
    )


def report_figures(wildcards):
    """Return the figures of the report: of the run, and of each iteration that asked questions."""
    return RUN_FIGURES + expand(
        ITERATION_FIGURES, iteration=range(1, last_iteration() + 1)
    )


def kept_iterations(what):
    """Return of how many of the newest iterations something is kept, or None if of all."""
    count = getattr(CONFIG.retention, what)
    return None if count == "all" else count


def retention_records(wildcards):
    """Return the records of what is to be dropped: of each iteration that is too old for what it holds."""
    records = []
    for what in RETENTION:
        kept = kept_iterations(what)
        old = range(1, last_iteration() + 1 - kept) if kept is not None else []
        records += [
            f"results/iter_{iteration}/dropped_{what}.json" for iteration in old
        ]
    return records


def newest_summary(wildcards):
    """Return the summary of the iteration that makes this one too old."""
    newest = int(wildcards.iteration) + (kept_iterations(wildcards.what) or 0)
    return f"results/iter_{newest}/summary.json"


def labelled_set(wildcards):
    """Return the configuration of the seed set or of the validation set."""
    return section("seed_set" if wildcards.part == "train" else "validation_set")


def labelled_set_fingerprint(wildcards):
    """Return the fingerprint of a labelled set's native files."""
    part = CONFIG.seed_set if wildcards.part == "train" else CONFIG.validation_set
    return native(*part.files)


def iteration_of(wildcards):
    """Return the iteration as a number."""
    return int(wildcards.iteration)


def weights_fingerprint(wildcards):
    """Return the fingerprint of the files that a detector starts from: weights in iteration 0, and a configuration."""
    detector = detector_of(wildcards)
    weights = (
        fingerprint(detector.weights)
        if detector.weights and iteration_of(wildcards) == 0
        else None
    )
    # A name of the model zoo is no file here.
    is_file = (
        detector.configuration is not None and Path(detector.configuration).is_file()
    )
    return [weights, fingerprint(detector.configuration)] if is_file else weights


def training(wildcards):
    """Return what is to be learned of the training section; where it runs is no parameter of a model."""
    settings = detector_of(wildcards).training
    return settings.model_dump(mode="json", exclude={"launcher", "cluster"})


def upper_bound_training(wildcards):
    """Return the training section with the steps of all later iterations together."""
    iterations, section = max(CONFIG.loop.iterations, 1), training(wildcards)
    lengths = {name: section[name] for name in ("finetune_steps", "finetune_epochs")}
    return section | {
        name: value and value * iterations for name, value in lengths.items()
    }


def measures_while_training(value, otherwise):
    """Return an input or parameter function: what a training needs to measure average precision before its end."""
    return lambda wildcards: (
        value if detector_of(wildcards).training.evaluate_steps else otherwise
    )


def training_processes():
    """Return how many processes train inside their rule's job: none where that only submits a job and follows it."""
    if CONFIG.training.launcher == "inline":
        return 1
    cluster = CONFIG.training.cluster
    return 0 if cluster.kind == "slurm" else cluster.tasks_per_node


def worker_cores(workers, threads=1):
    """Return the cores of a step with Dask workers; those that are SLURM jobs bring their own."""
    return threads if CONFIG.dask.cluster == "slurm" else threads * workers


def links_of(wildcards):
    """Return the trees of all batches of partitions."""
    return expand(
        "results/iter_{iteration}/links/{batch}.zarr",
        iteration=wildcards.iteration,
        batch=BATCHES,
    )


def growing(value):
    """Return a resource function: `value`, and as much again with each further attempt."""
    return lambda wildcards, attempt: value * attempt


def requested(estimate, name):
    """Return a resource function: what `estimate` finds from the job's input, more with each attempt."""
    # On a cluster two processes of Snakemake share each job's memory.
    more = 600 if name == "mem_mb" else 0

    def resource(wildcards, input, attempt):
        # Imported here, because every job on a cluster starts Snakemake twice and few of them need it.
        from segloop.clustering import planning

        return (getattr(estimate(planning, wildcards, input), name) + more) * attempt

    return resource


def to_partition(name):
    """Return a resource of partition_predictions, from the number of predictions once the index exists."""
    return requested(
        lambda planning, wildcards, input: planning.request_to_partition(
            input.index, CONFIG.clustering
        ),
        name,
    )


def to_link(name):
    """Return a resource of link_partitions, from the sizes of the batch's partitions once they are known."""
    return requested(
        lambda planning, wildcards, input: planning.request_to_link(
            input.partitions, int(wildcards.batch), CONFIG.clustering, CONFIG.dask
        ),
        name,
    )


def to_join(name):
    """Return a resource of join_trees, from the number of predictions once it is known."""
    return requested(
        lambda planning, wildcards, input: planning.request_to_join(
            input.partitions, CONFIG.clustering
        ),
        name,
    )


def embedding_fingerprint(wildcards):
    """Return the fingerprint of the user's own embeddings, if there are any."""
    path = CONFIG.clustering.embedding_file
    return (
        fingerprint(path.replace("{iteration}", wildcards.iteration)) if path else None
    )


def probability_fingerprint(wildcards):
    """Return the fingerprint of the user's own probabilities, if there are any."""
    path = CONFIG.annotation.probability_file
    return (
        fingerprint(path.replace("{iteration}", wildcards.iteration)) if path else None
    )


def if_distilled(path):
    """Return an input: nothing unless masks are accepted by how far predictions of transformed images agree."""
    return path if CONFIG.annotation.policy == "distillation" else []


def if_truth(path):
    """Return an input function: nothing for iteration 0, and nothing where the pool's truth is not known."""
    return if_asked(path) if CONFIG.pool.truth else []


def if_oracle(path):
    """Return an input: nothing unless the pool's truth answers."""
    return path if CONFIG.annotation.annotator == "oracle" else []


def if_people(files):
    """Return an input: nothing unless people answer."""
    return files if CONFIG.annotation.annotator == "people" else []


def edited_masks():
    """Return the masks that were mended, if people are there to mend them."""
    return if_people(["results/iter_{iteration}/edited.json"])


def loop_benchmarks(wildcards):
    """Return, of each step of an iteration, where Snakemake writes how long its jobs took."""
    annotate = f"annotate_{CONFIG.annotation.annotator}"
    asking = "index_predictions partition_predictions join_trees reduce_embeddings"
    of_each, always = ["train_detector", "evaluate_detector"], ["merge_training_set"]
    asked = [*asking.split(), annotate, "collect_masks"]
    several = {"predict_shard": SHARDS, "link_partitions": BATCHES}
    several |= {"measure_agreement": SHARDS} if if_distilled(True) else {}
    iteration = wildcards.iteration
    steps = [*asked, *always] if int(iteration) else always
    found = {step: [f"benchmarks/{step}/{iteration}.tsv"] for step in steps}
    for step in of_each:
        path = f"benchmarks/{step}/{iteration}.tsv"
        found[step] = [of_detector(path, name) for name in DETECTORS]
    for step, parts in several.items() if int(iteration) else ():
        found[step] = [f"benchmarks/{step}/{iteration}/{part}.tsv" for part in parts]
    return found


def iteration_ledgers(wildcards):
    """Return the ledgers of all iterations of the run."""
    return expand(
        "results/iter_{iteration}/ledger.json", iteration=range(last_iteration() + 1)
    )


def transferred_set():
    """Return the other labelled set as `import_seed` takes it."""
    return {key: section("transfer")[key] for key in type(CONFIG.seed_set).model_fields}


def pool_files():
    """Return the native files that say which images the pool has."""
    if CONFIG.pool.format == "truth":
        return CONFIG.pool.truth.files
    return [CONFIG.pool.list or CONFIG.pool.images]


def predictions_of_labelled_set(wildcards):
    """Return the prediction shards of the other labelled set."""
    return expand(
        "results/transfer/iter_{iteration}/predictions/{shard}.zarr",
        iteration=wildcards.iteration,
        shard=range(CONFIG.transfer.shards),
    )


def embedding_as_predicted(wildcards):
    """Return the clustering section for a stored embedding, with nothing done to it."""
    plain = {"embedding_file": None, "pca": None, "extra_columns": []}
    return section("clustering") | plain | {"embedding": wildcards.embedding}


def accepting_what_was_retrieved(wildcards):
    """Return the annotation section of a policy that accepts what was retrieved; people are not asked."""
    folder = f"results/transfer/iter_{wildcards.iteration}/{wildcards.embedding}"
    annotation = questions_section()
    if CONFIG.annotation.annotator == "people":
        annotation["audit"]["questions"] = 0
    policy = {"policy": "verifier", "threshold": 1.0}
    return annotation | policy | {"probability_file": f"{folder}/accepted.npy"}


def of_embeddings(name):
    """Return a file of the transfer for each embedding, in their order."""
    return expand(
        "results/transfer/iter_1/{embedding}/{name}",
        embedding=CONFIG.transfer.embeddings,
        name=name,
    )


def gold_masks():
    """Return where the truth of the masks of gold questions stands, if there is any.

    A parameter and no input: gold that is added for an iteration must not make earlier ones again.
    """
    return f"{CONFIG.annotation.answers_root}/gold.json"


def how_to_go_on():
    """Return what a person has to do next, if the run waits for people's answers."""
    # Imported here: it draws, too, and each job reads this file.
    from segloop.reporting.separability import separability_line

    last = answered_iterations()
    measured = Path(f"results/iter_{last + 1}/separability.json")
    return redrawing(last, Path.cwd(), CONFIG.annotation) + (
        f"\n{separability_line(measured)}\n"
        + asking(last + 1, Path.cwd(), CONFIG.annotation)
        if last < wanted_iterations() and measured.exists()
        else ""
    )


def record_start():
    """Write down what was started, for `segloop status`."""
    record_start_of(Path.cwd(), CONFIG, on_slurm() or CONFIG.submits_jobs)


def on_slurm():
    """Tell whether each job is a SLURM job."""
    return workflow.executor_plugin.name == "slurm"


def slurm_requests(most=20):
    """Return what the planned jobs ask of SLURM; of each rule at most so many jobs are looked at."""
    from segloop.preflight import Request

    jobs = {}
    for job in workflow.dag.needrun_jobs():
        if not job.is_local:
            jobs.setdefault(job.rule.name, []).append(job)
    return {
        Request.of(rule, job.resources, job.threads)
        for rule, some in jobs.items()
        for job in some[:most]
    }


def check_cluster():
    """End here, with one message, if this SLURM cannot run the plan or still runs jobs of a killed Snakemake."""
    from segloop.preflight import check

    if not on_slurm():
        return
    settings = workflow.executor_settings
    try:
        check(
            Path.cwd(),
            slurm_requests(),
            settings.status_command,
            settings.init_seconds_before_status_checks,
        )
    except SegloopError as error:
        # Snakemake would show an exception with the lines of this file that it passed.
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def check_detector():
    """End here, with one message, if the library of the detector is missing, before jobs wait for their turn."""
    from segloop.detection.installed import require

    try:
        for detector in DETECTORS.values():
            require(detector.backend)
    except SegloopError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def what_slurm_did(log):
    """Return what the batch system did to jobs that failed, and which setting helps."""
    from segloop.preflight import explain_failures

    # Snakemake hands over one file a logger.
    lines = [line for path in log for line in explain_failures(Path(path))]
    return "".join(f"\n{line}\n" for line in lines) if on_slurm() else ""
