"""What a policy may see: the tree and the columns of its predictions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from segloop.errors import SegloopError
from segloop.store.index import Index
from segloop.store.reduced import Reduced
from segloop.store.tree import Tree


# Told apart by identity, so that what is computed of a world can be remembered beside it.
@dataclass(frozen=True, eq=False)
class World:
    """The predictions that can be asked about, as rows 0..N-1.

    The first rows are the leaves of the tree, in the order of its leaf ids; behind them stand the predictions outside
    the tree (zero or broken embeddings), which are asked one by one. Without a tree all rows are of the second kind.
    Truth is not among the columns, and answers come separately.

    Attributes
    ----------
    tree
        The tree, or None for policies that need none.
    prediction : uint64 [N]
    category : int32 [N]
    score : float32 [N]
    image_id : int64 [N]
    predicted_iou : float32 [N] or None
    embedding : float16 [N, d] or None
        Leading principal components of what was clustered, rows of length 1 before the projection; zero outside the
        tree. What models learn from: it says how good a mask is much as the whole embedding does, and fits into memory.
    probability : float32 [N] or None
        Some model's probability that a mask is good, in 0..1; the policies `verifier` and `distillation` accept by it.
    """

    tree: Tree | None
    prediction: npt.NDArray[np.uint64]
    category: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    image_id: npt.NDArray[np.int64]
    predicted_iou: npt.NDArray[np.float32] | None = None
    embedding: npt.NDArray[np.float16] | None = None
    probability: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def leaves(self) -> int:
        """Number of rows that are leaves of the tree."""
        return 0 if self.tree is None else self.tree.n

    @cached_property
    def by_prediction(self) -> npt.NDArray[np.int64]:
        """Rows in ascending order of their prediction ids: an order that does not depend on the tree."""
        return np.argsort(self.prediction, kind="stable").astype(np.int64)

    @cached_property
    def position(self) -> npt.NDArray[np.int64]:
        """Place of each leaf in the depth-first order of the tree, so that a node's members are one range."""
        place = np.empty(self.leaves, np.int64)
        if self.tree is not None:
            place[np.asarray(self.tree.order, np.int64)] = np.arange(self.leaves, dtype=np.int64)
        return place

    def rows_of(self, prediction: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the row of each prediction id, -1 where it has none (a stale answer, a duplicate)."""
        order = self.by_prediction
        if not len(order):
            return np.full(len(prediction), -1, np.int64)
        place = np.searchsorted(self.prediction, prediction, sorter=order)
        row = order[np.minimum(place, len(order) - 1)]
        return np.where(self.prediction[row] == prediction, row, -1)


def build_world(
    index: Index,
    tree: Tree | None,
    reduced: Reduced | None = None,
    probability: npt.NDArray[np.float32] | None = None,
) -> World:
    """Return the world of an iteration: every prediction of the index that is not a duplicate.

    Parameters
    ----------
    probability
        One for each prediction of the index, in its order (`segloop.annotation.probabilities`).

    Raises
    ------
    SegloopError
        If tree, index and reduced embeddings do not hold the same predictions.
    """
    asked = np.flatnonzero(index.duplicate_of == 0)
    if tree is not None:
        rows = np.concatenate([np.asarray(tree.row_id, np.uint64), np.asarray(tree.null_id, np.uint64)])
        place = np.minimum(np.searchsorted(index.prediction, rows), max(0, len(index.prediction) - 1))
        if len(rows) != len(asked) or not np.array_equal(np.sort(rows), index.prediction[asked]):
            raise SegloopError(
                f"the tree holds {len(rows)} predictions, the index {len(asked)} that are no duplicates, or others: "
                "they do not belong together. Make the index and the tree of this iteration again."
            )
        asked = place.astype(np.int64)
    embedding = None
    if tree is not None and reduced is not None:
        if not np.array_equal(reduced.row_id, tree.row_id):
            raise SegloopError("the reduced embeddings are not those of the tree. Make both of this iteration again.")
        outside = np.zeros((len(asked) - tree.n, reduced.components.shape[1]), np.float16)
        embedding = np.concatenate([reduced.components, outside])
    return World(
        tree=tree,
        prediction=index.prediction[asked],
        category=index.category[asked],
        score=index.score[asked],
        image_id=index.image_id[asked],
        predicted_iou=None if index.predicted_iou is None else index.predicted_iou[asked],
        embedding=embedding,
        probability=None if probability is None else probability[asked],
    )
