"""Start a network from somebody else's weights."""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from segloop.errors import SegloopError

logger = logging.getLogger("segloop.detection")

COUNTER = "num_batches_tracked"
"""Ends the names of buffers that batch norms have in some versions of torch only, and that play no part."""


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    *,
    class_dependent: tuple[str, ...],
    backbone: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> None:
    """Copy named tensors into a network; layers for another number of categories stay random, with one warning.

    Parameters
    ----------
    state
        Tensors under the network's own names: those of the whole network, or of its backbone alone.
    path
        Where they come from, for messages.
    class_dependent
        How the names of layers begin whose shape depends on the number of categories.
    backbone
        How the names of a pretrained backbone begin.
    optional
        How the names of heads begin that the file may lack as a whole; they stay random then.

    Raises
    ------
    SegloopError
        If they belong to another architecture.
    """
    expected = model.state_dict()
    backbone_only = all(name.startswith(backbone) for name in state)
    lacking = () if any(name.startswith(optional) for name in state) else optional
    if not backbone_only and any(name.startswith(lacking) for name in expected):
        logger.info("%s holds no %s; it is left random", path, ", ".join(name.rstrip(".") for name in lacking))
    random = [
        name
        for name in expected
        if name.startswith(class_dependent) and not name.startswith(lacking) and not _fits(name, state, expected)
    ]
    if random and not backbone_only:
        logger.warning("%s is for another number of categories; left random: %s", path, ", ".join(random))
    state = {name: value for name, value in state.items() if name not in random}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise SegloopError(f"{path} belongs to another architecture: {str(error).splitlines()[-1].strip()}") from None
    missing = [
        name
        for name in missing
        if not name.startswith((*class_dependent, *lacking))
        and not name.endswith(COUNTER)
        and not (backbone_only and not name.startswith(backbone))
    ]
    unexpected = [name for name in unexpected if not name.endswith(COUNTER)]
    if not state or missing or unexpected:
        raise SegloopError(
            f"{path} belongs to another architecture: {len(missing)} parameters are missing {missing[:3]} and "
            f"{len(unexpected)} are unknown {unexpected[:3]}. Check detector.architecture, detector.mask_iou_head "
            "and detector.weights."
        )


def _fits(name: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return name in state and state[name].shape == expected[name].shape
