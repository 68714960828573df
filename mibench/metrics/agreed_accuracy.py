"""Agreed accuracy: the share of reconstructions that the evaluation models and an independent judge both accept.

Evaluation models are fooled by images that do not show the person (Ho et al., arXiv 2505.03519: Type-I adversarial
examples against the victim that transfer), so here a reconstruction counts only when two unlike witnesses agree:

1. the vote of the evaluation models names the target class (:mod:`mibench.metrics.attack_accuracy`), and
2. a judge that was never trained finds it near enough to a real image of the class: nearest neighbour among the
   private training images, at no more than 16 pixels a side, blind to brightness and contrast. Its threshold is the
   one at which ``false_accepts`` of all pairs (real test image, class it does not show) would pass.

The paper's judge is a multimodal language model; this one needs no weights and is a reconstruction of the idea. It is
made for aligned images, where pixels can be compared, and says itself how good it is. Rows: the agreed accuracy; the
judge alone (``judge``); and three yardsticks: ``true_accepts``, the agreed accuracy of real private test images,
``judge_true_accepts``, the share of them that the judge alone accepts as their class, and ``false_positives``, the
share of public images, which show none of the classes, that pass as the class the vote names for them. Where true
accepts are rare the judge is too strict to say much; where false positives are as frequent as the agreed accuracy
itself, that proves nothing. Missing samples count as failures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.data import evenly
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric, answers
from mibench.nn.verification import Judge, calibrated
from mibench.options import Count, Share
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class AgreedAccuracy(Metric[ClassTruth]):
    """Share accepted by vote and judge, with the judge's own rates."""

    card = MetricCard(
        name="agreed_accuracy",
        title="Agreed accuracy",
        modalities=("image", "audio"),
        year=2025,
        bib="type1_audit",
        fidelity="reconstruction",
        tasks=("class",),
        higher_is_leakier=True,
        share=True,
        confirms=(("judge", "judge_true_accepts"),),
    )

    false_accepts: Share = 0.01
    """Share of (test image, class it does not show) that the judge lets pass."""
    public_images: Count = 512
    """The most public images that the false positives are counted on, evenly taken."""

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return hits of shape ``(N,)``, and the three yardsticks, one value per real image.

        Raises:
            NotMeasurableError: If the judge cannot be calibrated.
        """
        judge, present = judge_of(truth, self.false_accepts), ~result.missing
        name, named = verdict(truth, result.values)
        passed = judge.accepts(result.values, result.target) & present
        agreed = passed & (named == result.target)
        test = truth.private.test
        _, named_test = verdict(truth, test.x)
        real = judge.accepts(test.x, test.y)
        true_accepts = real & (named_test == test.y)
        return [
            Measurement(values=agreed.double(), groups=result.target, evaluator=name),
            Measurement(values=passed.double(), groups=result.target, variant="judge", evaluator="pixels"),
            Measurement(
                values=true_accepts.double(), groups=test.y, variant="true_accepts", evaluator=name, yardstick=True
            ),
            self._false_positives(judge, truth),
            Measurement(
                values=real.double(), groups=test.y, variant="judge_true_accepts", evaluator="pixels", yardstick=True
            ),
        ]

    def _false_positives(self, judge: Judge, truth: ClassTruth) -> Measurement:
        variant, empty = "false_positives", torch.empty(0)
        if truth.public is None:
            reason = "The dataset has no public images, on which false positives are counted."
            return Measurement(values=empty, groups=empty, variant=variant, reason=reason, yardstick=True)
        strangers = evenly(truth.public.x, self.public_images)
        name, named = verdict(truth, strangers)
        passed = judge.accepts(strangers, named)
        groups = torch.arange(len(strangers))
        return Measurement(values=passed.double(), groups=groups, variant=variant, evaluator=name, yardstick=True)


def verdict(truth: ClassTruth, images: Tensor) -> tuple[str, Tensor]:
    """Return who decides (``vote``, or the only evaluation model), and the class it names for each image ``(N,)``."""
    name, probabilities = list(answers(truth.evaluators, images).items())[-1]
    return name, probabilities.argmax(1)


def judge_of(truth: ClassTruth, false_accepts: float) -> Judge:
    """Return the judge, calibrated on the private images.

    Raises:
        NotMeasurableError: If there is no pair of a test image and another class.
    """
    try:
        return calibrated(truth.private, false_accepts)
    except ValueError as error:
        raise NotMeasurableError(f"The judge cannot be calibrated: {error}") from error
