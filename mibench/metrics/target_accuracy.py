"""Target accuracy: the utility of the defended victim on private test data, as its service answers.

Beside it stand the evaluation models' accuracies and that of their vote, without which attack accuracy cannot be read,
and the accuracy of naming the most frequent class always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric, answers
from mibench.tasks.base import Reconstruction, Truth
from mibench.tasks.class_ import ClassTruth


class TargetAccuracy(Metric[Truth]):
    """Accuracy of the victim behind all of its defenses, of the evaluation models and of their vote."""

    card = MetricCard(
        name="target_accuracy",
        title="Target accuracy",
        modalities=("image", "text", "tabular", "audio", "graph"),
        tasks=("class", "instance", "completion", "attribute", "sequence", "edges"),
        higher_is_leakier=False,
        share=True,
    )
    of_victim: ClassVar[bool] = True
    needs_no_truth: ClassVar[bool] = True

    def measure(self, result: Reconstruction, truth: Truth) -> Sequence[Measurement]:
        """Return, per private test example, whether victim and vote are right; a number per evaluation model; chance.

        Raises:
            NotMeasurableError: If the cell has no data to test on.
        """
        if not len(truth.correct):
            raise NotMeasurableError("The dataset has no test data of the model's, so its accuracy is not known.")
        one = torch.zeros(1, dtype=torch.long)
        victim = Measurement(values=truth.correct.double(), groups=torch.arange(len(truth.correct)), variant="victim")
        others = [
            Measurement(values=torch.tensor([e.accuracy]), groups=one, variant="evaluator", evaluator=e.name)
            for e in truth.evaluators
        ]
        if isinstance(truth, ClassTruth) and len(truth.evaluators) > 1:
            others.append(_of_vote(truth))
        return [victim, *others, Measurement(values=torch.tensor([truth.chance]), groups=one, variant="chance")]


def _of_vote(truth: ClassTruth) -> Measurement:
    test = truth.private.test
    name, probabilities = list(answers(truth.evaluators, test.x).items())[-1]
    right = probabilities.argmax(1) == test.y.cpu()
    return Measurement(right.double(), torch.arange(len(right)), variant="evaluator", evaluator=name)
