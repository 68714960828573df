"""Attack accuracy: the share of reconstructions that independent evaluation models assign to the target class.

Zhang et al., CVPR 2020, and the line of work after it. Several evaluation models of unlike architecture answer singly
and as a vote (mean of their probabilities), since one alone is fooled by texture made against its own family of
networks. Top-5 means that the class is among the five most probable ones, not that one of five restarts was right.

Two yardsticks tell how many public images, which show none of the classes, each evaluation model and the vote accept.
``strangers`` is the mean over the attacked classes of the share of public images that are assigned to the class; it is
near one over the number of classes. ``strangers_best`` takes for every class as many public images as it has
reconstructions, those that the victim is surest of as the class, and is the share of them that are assigned to it.
Whoever searches the public images with the victim reaches that rate without any leak.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.data import STRANGERS, evenly
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

    def __post_init__(self) -> None:
        """Check the options; yardsticks are measured once for a result and its control."""
        super().__post_init__()
        self._tried: tuple[ClassTruth, Sequence[Measurement]] | None = None

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return hits of shape ``(N,)`` per evaluator and rank, and the yardsticks per evaluator."""
        probabilities = answers(truth.evaluators, result.values)
        hits = [_hits(scores, result, rank, name) for name, scores in probabilities.items() for rank in (1, 5)]
        if self._tried is None or self._tried[0] is not truth:
            self._tried = truth, [*_strangers(truth, result.target), *_surest(truth, result.target)]
        return [*hits, *self._tried[1]]


def _strangers(truth: ClassTruth, target: Tensor) -> Sequence[Measurement]:
    """Return, per evaluator, the share of public images that it assigns to each attacked class, shape ``(T,)``."""
    if truth.public is None or not truth.evaluators:
        return [_unknown("strangers", "The dataset has no public images, on which strangers are counted.")]
    named, classes = _named(truth, evenly(truth.public.x, STRANGERS)), target.unique().cpu()
    return [
        _yardstick("strangers", name, torch.stack([(chosen == label).double().mean() for label in classes]), classes)
        for name, chosen in named.items()
    ]


def _surest(truth: ClassTruth, target: Tensor) -> Sequence[Measurement]:
    """Return, per evaluator, whether it assigns public images to the class that the victim is surest of them as.

    There are as many of every class as reconstructions, or as public images, shape ``(T * samples,)``.
    """
    if truth.public is None or truth.victim is None or not truth.evaluators:
        return [_unknown("strangers_best", "There are no public images here, or no victim that could choose of them.")]
    images, sure = truth.public.x, truth.victim.predict_proba(truth.public.x).cpu()
    classes, counts = (found.cpu() for found in target.unique(return_counts=True))
    chosen = [
        sure[:, label].topk(min(count, len(images))).indices
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True)
    ]
    labels = torch.cat([label.expand(len(rows)) for label, rows in zip(classes, chosen, strict=True)])
    named = _named(truth, images[torch.cat(chosen).to(images.device)])
    return [_yardstick("strangers_best", name, (said == labels).double(), labels) for name, said in named.items()]


def _named(truth: ClassTruth, images: Tensor) -> dict[str, Tensor]:
    return {name: scores.argmax(1) for name, scores in answers(truth.evaluators, images).items()}


def _yardstick(variant: str, evaluator: str, values: Tensor, groups: Tensor) -> Measurement:
    return Measurement(values=values, groups=groups, variant=variant, evaluator=evaluator, yardstick=True)


def _unknown(variant: str, reason: str) -> Measurement:
    empty = torch.empty(0)
    return Measurement(values=empty, groups=empty, variant=variant, reason=reason, yardstick=True)


def _hits(scores: Tensor, result: Reconstruction, rank: int, evaluator: str) -> Measurement:
    variant = f"top{rank}"
    if rank >= scores.shape[1] and rank > 1:
        empty = torch.empty(0)
        reason = f"Top-{rank} of {scores.shape[1]} classes is always right, so it is not a measurement."
        return Measurement(values=empty, groups=empty, variant=variant, evaluator=evaluator, reason=reason)
    right = (scores.topk(rank, 1).indices == result.target[:, None]).any(1) & ~result.missing
    return Measurement(values=right.double(), groups=result.target, variant=variant, evaluator=evaluator)
