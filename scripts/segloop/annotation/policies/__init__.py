"""Policies: which question comes next, and what is accepted. A new one is a module here and a line in `POLICIES`."""

from collections.abc import Callable
from typing import Final

from segloop.annotation.policies.audited import Audited
from segloop.annotation.policies.base import OUTSIDE, Decision, Policy, SelfAudited
from segloop.annotation.policies.certified import Certified
from segloop.annotation.policies.iccv21 import Iccv21
from segloop.annotation.policies.kmeans import KMeans
from segloop.annotation.policies.per_mask import PerMask
from segloop.annotation.policies.propagate import Propagate
from segloop.annotation.policies.score_audit import ScoreAudit
from segloop.annotation.policies.thesis import Thesis
from segloop.annotation.policies.threshold import Distillation, IouThreshold, ScoreThreshold, Verifier
from segloop.annotation.quality import without_gold_share
from segloop.config import AnnotationConfig
from segloop.errors import SegloopError

__all__ = ["OUTSIDE", "POLICIES", "Decision", "PerMask", "Policy", "Thesis", "make_policy"]


POLICIES: Final[dict[str, Callable[[AnnotationConfig, int], Policy]]] = {
    "per_mask": PerMask.of,
    "thesis": Thesis.of,
    "iccv21": Iccv21.of,
    "certified": Certified.of,
    "score_audit": ScoreAudit.of,
    "propagate": Propagate.of,
    "kmeans": KMeans.of,
    "score_threshold": ScoreThreshold.of,
    "iou_threshold": IouThreshold.of,
    "verifier": Verifier.of,
    "distillation": Distillation.of,
}
"""The word in `annotation.policy` and what it makes of the configuration and the iteration."""


def audits_itself(config: AnnotationConfig) -> bool:
    """Return whether the policy that a configuration names has an audit of its own."""
    return isinstance(POLICIES[config.policy](config, 0), SelfAudited)


def make_policy(config: AnnotationConfig, iteration: int = 0) -> Policy:
    """Return the policy that a configuration names, with the audit that follows it.

    Parameters
    ----------
    iteration
        Decides what an audit may spend and names its certificates; 0: outside any loop, where it may spend everything.

    Raises
    ------
    SegloopError
        If there is none of that name.
    """
    config = without_gold_share(config)
    try:
        policy = POLICIES[config.policy](config, iteration)
    except KeyError:
        raise SegloopError(f"annotation.policy {config.policy!r} is none of {', '.join(POLICIES)}") from None
    audit = config.audit
    if audit.questions == 0 or (isinstance(policy, SelfAudited) and audit.categories == 0):
        return policy
    if isinstance(policy, SelfAudited):
        # Its own audit spends one half, those of the categories the other.
        audit = audit.model_copy(update={"delta": audit.delta / 2})
        policy = POLICIES[config.policy](config.model_copy(update={"audit": audit}), iteration)
    return Audited(policy, audit, iteration)
