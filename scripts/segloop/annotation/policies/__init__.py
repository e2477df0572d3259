"""Policies: which question comes next, and what is accepted. A new one is a module here and a line in `POLICIES`."""

from collections.abc import Callable
from typing import Final

from segloop.annotation.policies.base import OUTSIDE, Decision, Policy
from segloop.annotation.policies.per_mask import PerMask
from segloop.annotation.policies.thesis import Thesis
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError

__all__ = ["OUTSIDE", "POLICIES", "Decision", "PerMask", "Policy", "Thesis", "make_policy"]


def _per_mask(config: AnnotationConfig) -> Policy:
    return PerMask(questions=config.questions, order=config.order)


def _thesis(config: AnnotationConfig) -> Policy:
    return Thesis(n=config.n, t_agr=config.t_agr, start=config.start, s_min=config.s_min, reuse=config.reuse)


POLICIES: Final[dict[str, Callable[[AnnotationConfig], Policy]]] = {"per_mask": _per_mask, "thesis": _thesis}
"""The word in `annotation.policy` and what it makes."""


def make_policy(config: AnnotationConfig) -> Policy:
    """Return the policy that a configuration names.

    Raises
    ------
    SegloopError
        If there is none of that name.
    """
    try:
        return POLICIES[config.policy](config)
    except KeyError:
        raise SegloopError(f"annotation.policy {config.policy!r} is none of {', '.join(POLICIES)}") from None
