"""All figures that show masks of one iteration: galleries, neighbours, clusters, their map, and what scores mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segloop.annotation.oracle import Matching
from segloop.reporting.calibration import plot_calibration
from segloop.reporting.category_gallery import plot_category_gallery
from segloop.reporting.clusters import plot_clusters
from segloop.reporting.embedding_map import plot_embedding_map
from segloop.reporting.gallery import plot_galleries
from segloop.reporting.neighbours import plot_neighbours


@dataclass(frozen=True)
class MaskFiles:
    """What the figures are drawn from.

    Attributes
    ----------
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order.
    partitions, reduced, tree, index
        The iteration's stores of these names.
    answers, verdicts, truth_match
        The iteration's tables of these names; truth_match is None where the truth is not known.
    seed_set
        The canonical seed set, for the names of categories.
    """

    predictions: list[Path]
    shards: list[Path]
    partitions: Path
    reduced: Path
    tree: Path
    index: Path
    answers: Path
    verdicts: Path
    truth_match: Path | None
    seed_set: Path


def plot_masks(
    given: MaskFiles,
    made: Mapping[str, Path],
    *,
    iteration: int,
    report: Mapping[str, Any],
    t_iou: float,
    matching: Matching,
    seed: int,
) -> None:
    """Draw them all.

    Parameters
    ----------
    made
        Where each figure and its table goes, by the names of the rule's outputs.
    report
        The section `report` of the configuration.
    t_iou, matching
        The IoU from which a mask is good, and whether a truth serves several masks.
    """
    pictures: dict[str, Any] = {
        "predictions": given.predictions,
        "shards": given.shards,
        "seed_set": given.seed_set,
        "iteration": iteration,
        "seed": seed,
    }
    judged = pictures | {"verdicts": given.verdicts}
    plot_galleries(
        truth_match=given.truth_match,
        matching=matching,
        accepted=made["accepted"],
        rejected=made["rejected"],
        undecided=made["undecided"],
        masks=report["gallery"],
        **judged,
    )
    plot_neighbours(
        partitions=given.partitions,
        png=made["neighbours"],
        ids=made["neighbours_ids"],
        queries=report["neighbour_queries"],
        neighbours=report["neighbours"],
        **pictures,
    )
    plot_clusters(
        tree=given.tree,
        answers=given.answers,
        purity=made["purity"],
        history_svg=made["history_svg"],
        history_png=made["history"],
        clusters=report["clusters"],
        **judged,
    )
    plot_category_gallery(index=given.index, png=made["categories"], **judged)
    plot_embedding_map(reduced=given.reduced, html=made["map"], table=made["map_csv"], masks=report["map"], **judged)
    plot_calibration(
        index=given.index,
        answers=given.answers,
        truth_match=given.truth_match,
        matching=matching,
        t_iou=t_iou,
        svg=made["calibration"],
        png=made["calibration_png"],
        table=made["calibration_csv"],
    )
