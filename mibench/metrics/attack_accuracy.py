"""Attack accuracy: the share of reconstructions that independent evaluation models assign to the target class.

Zhang et al., CVPR 2020, and the line of work after it. Several evaluation models of unlike architecture answer singly
and as a vote (mean of their probabilities), since one alone is fooled by texture made against its own family of
networks. Top-5 means that the class is among the five most probable ones, not that one of five restarts was right.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric, answers
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class AttackAccuracy(Metric[ClassTruth]):
    """Top-1 and top-5 accuracy under each evaluation model and under their vote; missing samples count as failures."""

    card = MetricCard(
        name="attack_accuracy",
        title="Attack accuracy",
        modalities=("image", "tabular", "audio"),
        year=2020,
        bib="gmi",
        tasks=("class",),
        higher_is_leakier=True,
        share=True,
    )

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return hits of shape ``(N,)`` per evaluator and rank."""
        probabilities = answers(truth.evaluators, result.values)
        return [_hits(scores, result, rank, name) for name, scores in probabilities.items() for rank in (1, 5)]


def _hits(scores: Tensor, result: Reconstruction, rank: int, evaluator: str) -> Measurement:
    variant = f"top{rank}"
    if rank >= scores.shape[1] and rank > 1:
        empty = torch.empty(0)
        reason = f"Top-{rank} of {scores.shape[1]} classes is always right, so it is not a measurement."
        return Measurement(values=empty, groups=empty, variant=variant, evaluator=evaluator, reason=reason)
    right = (scores.topk(rank, 1).indices == result.target[:, None]).any(1) & ~result.missing
    return Measurement(values=right.double(), groups=result.target, variant=variant, evaluator=evaluator)
