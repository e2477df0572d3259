"""The embedding map: a sample of an iteration's masks in two dimensions, to zoom into and to look at one by one."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import altair as alt
import numpy as np
import numpy.typing as npt
from PIL import Image

from segloop.annotation.verdicts import WORDS, read_verdicts
from segloop.clustering.numerics import numerical_threads
from segloop.files import atomic_file
from segloop.randomness import generator, seed_of
from segloop.reporting.numbers import write_csv
from segloop.reporting.shown import ShownMask, category_names, draw_shown, look_up
from segloop.reporting.style import BLUE, GREY, ORANGE
from segloop.store.reduced import count_reduced, read_reduced_rows

SIDE: Final = 88
"""Pixels of a mask's picture."""
LEAST_FOR_TSNE: Final = 10
_COLOURS: Final = {"accepted": BLUE, "rejected": ORANGE, "undecided": GREY}
_SHAPES: Final = {"accepted": "circle", "rejected": "cross", "undecided": "triangle-up"}
_EVERY: Final = "every category"

Floats = npt.NDArray[np.float64]


def plot_embedding_map(
    *,
    reduced: Path,
    predictions: list[Path],
    shards: list[Path],
    verdicts: Path,
    seed_set: Path,
    html: Path,
    table: Path,
    iteration: int,
    masks: int,
    seed: int,
) -> None:
    """Draw a sample of masks by their two first principal components, and by t-SNE of all components.

    t-SNE (L. van der Maaten and G. Hinton, *Visualizing Data using t-SNE*, JMLR 9, 2008) keeps near neighbours
    together; distances between groups and their sizes mean nothing in it.

    Parameters
    ----------
    reduced
        reduced.zarr: principal components of what was clustered.
    predictions, shards
        The iteration's prediction stores and the pool's Parquet files, each in shard order.
    verdicts
        verdicts.parquet of the iteration.
    seed_set
        The canonical seed set, for the names of categories.
    html
        A page that needs nothing but itself.
    table
        CSV of the points: prediction, category, score, verdict, pca_1, pca_2, tsne_1, tsne_2.
    masks
        Size of the sample.

    Raises
    ------
    SegloopError
        If an input is missing or damaged.
    """
    total = count_reduced(reduced)
    rows = np.sort(generator("map", seed, iteration).choice(total, min(masks, total), replace=False))
    sample = read_reduced_rows(reduced, rows)
    components = sample.components.astype(np.float64)
    shown = look_up(sample.row_id, predictions, shards)
    judged = read_verdicts(verdicts)
    place = np.searchsorted(judged.prediction, sample.row_id)
    words = [WORDS[int(verdict)] for verdict in judged.verdict[place]]
    flat, spread = _plane(components), _tsne(components, seed_of("map", seed, iteration))
    names = category_names(seed_set)
    points = [_point(*each, names) for each in zip(shown, words, flat, spread, strict=True)]
    head = ("prediction", "category", "score", "verdict", "pca_1", "pca_2", "tsne_1", "tsne_2")
    write_csv(table, head, [[point[name] for name in head] for point in points])
    chart = _chart(points, [draw_shown(mask, SIDE) for mask in shown], f"{len(points):,} of {total:,} masks")
    with atomic_file(html) as temporary:
        chart.save(str(temporary), format="html", inline=True, json_kwds={"cls": _ForScripts})


class _ForScripts(json.JSONEncoder):
    """JSON that can stand in a script of a page: a category named `</script>` does not end it."""

    def encode(self, o: Any) -> str:
        """Return a value as JSON."""
        return super().encode(o).replace("<", "\\u003c")


def _plane(components: Floats) -> Floats:
    """Return the two first components [n, 2], zeros for those that are missing."""
    flat = np.zeros((len(components), 2))
    flat[:, : min(2, components.shape[1])] = components[:, :2]
    return flat


def _tsne(components: Floats, seed: int) -> Floats:
    """Return t-SNE's plane [n, 2]; of very few masks, or of equal ones, the principal components."""
    if len(components) < LEAST_FOR_TSNE or components.shape[1] < 2 or not np.ptp(components, axis=0).any():
        return _plane(components)
    # Imported when needed: it takes a second, and only this figure uses it.
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(components) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed % (1 << 32), n_jobs=1)
    # Its OpenMP loops take every core that they see, and wait for each other on a busy machine.
    with numerical_threads(1):
        return np.asarray(tsne.fit_transform(components), np.float64)


def _point(mask: ShownMask, verdict: str, flat: Floats, spread: Floats, names: dict[int, str]) -> dict[str, Any]:
    return {
        # As text, because it exceeds the integers of JavaScript.
        "prediction": str(mask.prediction),
        "category": names.get(mask.category, f"category {mask.category}"),
        "score": round(mask.score, 4),
        "verdict": verdict,
        "pca_1": round(float(flat[0]), 5),
        "pca_2": round(float(flat[1]), 5),
        "tsne_1": round(float(spread[0]), 3),
        "tsne_2": round(float(spread[1]), 3),
    }


def _chart(points: list[dict[str, Any]], pictures: list[Any], title: str) -> alt.Chart:
    values = [
        # vega-tooltip shows a field of this name as a picture.
        point | ({"image": _embedded(picture)} if picture is not None else {})
        for point, picture in zip(points, pictures, strict=True)
    ]
    axes = alt.param(name="axes", value="tsne", bind=alt.binding_radio(options=["tsne", "pca"], name="Plane: "))
    categories = [_EVERY, *sorted({point["category"] for point in points})]
    chosen = alt.param(name="chosen", value=_EVERY, bind=alt.binding_select(options=categories, name="Category: "))
    order = list(_COLOURS)
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=values), title=title, width=860, height=560)
        .transform_calculate(
            first="axes == 'tsne' ? datum.tsne_1 : datum.pca_1", second="axes == 'tsne' ? datum.tsne_2 : datum.pca_2"
        )
        .transform_filter(f"chosen == '{_EVERY}' || datum.category == chosen")
        .mark_point(filled=False, size=42, strokeWidth=1.6)
        .encode(
            x=alt.X("first:Q", title="first direction (no unit)", scale=alt.Scale(zero=False)),
            y=alt.Y("second:Q", title="second direction (no unit)", scale=alt.Scale(zero=False)),
            color=alt.Color("verdict:N", scale=alt.Scale(domain=order, range=list(_COLOURS.values())), title="verdict"),
            shape=alt.Shape("verdict:N", scale=alt.Scale(domain=order, range=list(_SHAPES.values())), title="verdict"),
            tooltip=[alt.Tooltip(f"{name}:N") for name in ("image", "category", "verdict", "score", "prediction")],
        )
        .add_params(axes, chosen)
        .interactive()
    )
    return chart


def _embedded(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
