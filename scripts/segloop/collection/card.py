"""The card of a collected data set: what it holds, how it was made, how good it is, and how to make it again."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segloop.annotation.certificates import read_certificates
from segloop.config import Config
from segloop.files import atomic_file, read_document, read_json, sha256_file, write_json

MANIFEST_SCHEMA: Final = 1
UNKNOWN: Final = "not stated (`card` in the configuration)"

Record = dict[str, Any]


@dataclass(frozen=True)
class CardFiles:
    """What the card of an iteration is made from."""

    collected: list[Path]
    """collected.json of the iterations 1..i."""
    summary: Path
    """summary.json of the iteration."""
    seed_set: Path
    """The canonical seed set."""
    models: list[Path]
    """Folders of the models that predicted in the iteration, in the order of the detectors."""
    certificates: list[Path]
    """certificates.json of the iterations 1..i."""


def write_card(files: CardFiles, config: Config, versions: dict[str, str | None], card: Path, manifest: Path) -> None:
    """Write the data set card and the manifest beside collected.json.

    Parameters
    ----------
    files
        See `CardFiles`.
    config
        The configuration of the run.
    versions
        Of the libraries that results depend on.
    card
        Markdown, in the headings that data set cards share (Gebru et al., *Datasheets for Datasets*, 2021).
    manifest
        {"schema_version", "iteration", "masks", "content_sha256", "files": {name: sha256}, "configuration_sha256",
        "weights_sha256": [one a detector], "seed", "versions"}. `content_sha256` covers every mask with its image and
        category, and nothing else: it changes if any mask does, and does not if files are laid out otherwise.

    Raises
    ------
    SegloopError
        If a file is missing or damaged.
    """
    sets = [read_json(path) for path in files.collected]
    summary = read_document(files.summary)
    record = _manifest(files, sets, summary, config, versions)
    write_json(manifest, record)
    with atomic_file(card) as temporary:
        temporary.write_text(_card(files, sets, summary, config, record), encoding="utf-8")


def content_hash(sets: Iterable[Record]) -> str:
    """Return the SHA-256 of all masks: image name, category name and mask key, in an order of their own."""
    lines = []
    for content in sets:
        names = {one["id"]: one["file_name"] for one in content["images"]}
        categories = {one["id"]: one["name"] for one in content["categories"]}
        for one in content["annotations"]:
            mask = one["segmentation"]
            size = "x".join(map(str, mask["size"]))
            lines.append(
                f"{names[one['image_id']]}\x1f{categories[one['category_id']]}\x1f{size}\x1f{mask['counts']}\n"
            )
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode())
    return digest.hexdigest()


def _manifest(
    files: CardFiles, sets: list[Record], summary: Record, config: Config, versions: dict[str, str | None]
) -> Record:
    text = config.model_dump_json()
    return {
        "schema_version": MANIFEST_SCHEMA,
        "iteration": summary["iteration"],
        "masks": sum(len(content["annotations"]) for content in sets),
        "content_sha256": content_hash(sets),
        "files": {path.parent.name + "/" + path.name: sha256_file(path) for path in files.collected},
        "configuration_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "weights_sha256": [read_json(model / "model.json")["weights_sha256"] for model in files.models],
        "seed": config.seed,
        "versions": versions,
    }


def _card(files: CardFiles, sets: list[Record], summary: Record, config: Config, manifest: Record) -> str:
    sections = [
        ("Contents", _contents(sets)),
        ("Sources and licences", _sources(config, read_json(files.seed_set))),
        ("How it was made", _procedure(config, summary)),
        ("How good it is", _quality(summary, files.certificates)),
        ("Known biases", _biases(sets, config)),
        ("How to make it again", _again(manifest)),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"{_head(summary, manifest)}\n\n{body}\n"


def _head(summary: Record, manifest: Record) -> str:
    return (
        f"# Collected masks up to iteration {summary['iteration']}\n\n"
        f"{manifest['masks']:,} instance masks that a detector predicted and a question policy accepted. Format: COCO "
        "instances with provenance, `collected.json` of each iteration. Content hash (changes if any mask does): "
        f"`{manifest['content_sha256']}`."
    )


def _contents(sets: list[Record]) -> str:
    counts: Counter[str] = Counter()
    images = {one["file_name"] for content in sets for one in content["images"]}
    reasons: Counter[str] = Counter()
    for content in sets:
        names = {one["id"]: one["name"] for one in content["categories"]}
        for one in content["annotations"]:
            counts[str(names[one["category_id"]])] += 1
            reasons[str(one["provenance"]["verdict_reason"])] += 1
    total = counts.total()
    rows = "\n".join(f"| {name} | {count:,} | {100 * count / total:.1f} % |" for name, count in counts.most_common())
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "none"
    each = f", {total / len(images):.2f} on an image that has any" if images else ""
    table = f"\n\n| category | masks | share |\n|---|---|---|\n{rows}" if rows else ""
    return f"{total:,} masks on {len(images):,} images{each}. Accepted because: {why}.{table}"


def _sources(config: Config, seed: Record) -> str:
    named = [str(one.get("name") or one.get("url")) for one in seed.get("licenses") or []]
    seed_licence = config.card.seed_licence or ", ".join(named) or UNKNOWN
    pool_licence = config.card.pool_licence or UNKNOWN
    return (
        f"- Pool: {config.pool.list or config.pool.images} ({config.pool.format}). Licence: {pool_licence}. The images "
        "belong to who published them, and are not part of this data set.\n"
        f"- Seed set: {config.seed_set.annotations} ({config.seed_set.format}), {len(seed['images']):,} images. "
        f"Licence: {seed_licence}."
    )


def _procedure(config: Config, summary: Record) -> str:
    who = "people" if config.annotation.annotator == "people" else "simulated annotators who know the truth of the pool"
    return (
        f"The loop of segloop: {_detectors(config)} trained on the seed set and on what was collected before predicted "
        f"masks on the pool; predictions with a score above {config.index.score:g} were clustered by their embeddings "
        f"({config.clustering.linkage} linkage); the policy "
        f"`{config.annotation.policy}` asked {who} whether single masks are good "
        f"(IoU above {config.annotation.t_iou:g}) and accepted or rejected the rest. Iteration {summary['iteration']} "
        f"asked {_count(summary['questions'])} questions and collected {_count(summary['collected'])} masks."
    )


def _detectors(config: Config) -> str:
    names = [f"{one.backend}, {one.architecture}" for one in config.each_detector.values()]
    return f"a detector ({names[0]})" if len(names) == 1 else f"{len(names)} detectors ({'; '.join(names)})"


def _quality(summary: Record, certificates: list[Path]) -> str:
    lines = []
    for one in (each for path in certificates for each in read_certificates(path)):
        lines.append(
            f"- {one.certificate_id}: of {one.size:,} masks at least {one.claimed:.3f} are good with confidence "
            f"{1 - one.delta:.4f} ({one.asked:,} questions; wanted {one.target:.2f}: "
            f"{'shown' if one.passed else 'not shown'})."
        )
    if not lines:
        lines.append("- No audit was made: nothing is claimed about the share of good masks.")
    if summary.get("precision") is not None:
        lines.append(f"- By the truth of the pool, {summary['precision']:.3f} of the masks of this iteration are good.")
    quality = summary.get("quality")
    if quality and quality.get("mean_iou") is not None:
        low, high = quality["interval"]
        sample = f"- Mean IoU of a redrawn sample of {quality['sample']}"
        lines.append(f"{sample}: {quality['mean_iou']:.3f} ({low:.3f} to {high:.3f}).")
    return "\n".join(lines)


def _biases(sets: list[Record], config: Config) -> str:
    scores = sorted(one["score"] for content in sets for one in content["annotations"])
    middle = f" Half of the collected masks have a score above {scores[len(scores) // 2]:.2f}." if scores else ""
    return (
        "Only objects that the detector found and scored above "
        f"{config.index.score:g} can be in it: what the detector misses or doubts is missing, and what it finds easily "
        f"is too frequent.{middle} Images are not annotated completely: an object without a mask is not background. "
        "The report's figures of bias and coverage show it by category, size, position and score."
    )


def _again(manifest: Record) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items() if version)
    return (
        "`results/config.yaml`, `results/run.json` and `results/requirements.lock` of the run hold the whole "
        f"configuration and environment; the seed is {manifest['seed']}. On a CPU the same inputs and versions give "
        f"the same bytes. SHA-256 of the configuration: `{manifest['configuration_sha256']}`. Versions: {versions}."
    )


def _count(value: int | None) -> str:
    return "no" if value is None else f"{value:,}"
