"""Transfer floor: what the evaluation models accept of images of other people, perturbed against the victim.

After the controlled experiment of Ho et al., arXiv 2505.03519: what fools the victim may fool an evaluation model by
transfer, most of all one of the victim's own family, and then counts as a reconstruction. Here real private test
images of *other* classes are moved towards each attacked class by projected gradient descent on the victim's
cross-entropy, by at most ``epsilon`` per pixel: they still show somebody else. Whatever share of them is accepted as
the target is the floor below which attack accuracy under the same evaluation model proves no likeness.

Rows, before (``clean``) and after the perturbation (``linf=0.1``): the victim, whose share says whether the ball was
wide enough, each evaluation model, their vote, and ``agreed``, the vote with the judge of
:mod:`mibench.metrics.agreed_accuracy`. It audits the evaluation and not the attack, so it has neither control nor
direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.agreed_accuracy import judge_of
from mibench.metrics.base import Measurement, Metric, answers
from mibench.model import Classifier
from mibench.nn.verification import Judge
from mibench.optim.perturbation import towards
from mibench.options import Count, Positive, Share
from mibench.seeding import generator
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class TransferFloor(Metric[ClassTruth]):
    """Acceptance of other people's perturbed images, by victim, evaluation models, vote and judge."""

    card = MetricCard(
        name="transfer_floor",
        title="Transfer floor",
        modalities=("image",),
        year=2025,
        bib="type1_audit",
        fidelity="reconstruction",
        tasks=("class",),
        higher_is_leakier=None,
        share=True,
        default=False,
    )
    of_victim: ClassVar[bool] = True

    epsilon: Positive = 0.1
    """How far a pixel may move, on the scale of [0, 1]."""
    steps: Count = 20
    """Steps of the descent."""
    images: Count = 20
    """Images of other classes per attacked class."""
    false_accepts: Share = 0.01
    """The judge's, as in ``agreed_accuracy``."""

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return, per judge of the images and before and after, acceptances of shape ``(images of all classes,)``.

        Raises:
            NotMeasurableError: If there is no victim to perturb against, or no image of another class.
        """
        if truth.victim is None:
            raise NotMeasurableError("There is no victim here to perturb images against.")
        victim, judge = truth.victim, judge_of(truth, self.false_accepts)
        images, labels = self._of_others(truth, result.target.unique())
        moved = towards(victim, images, labels, self.epsilon, self.steps)
        return [
            Measurement(values=accepted.double(), groups=labels, variant=variant, evaluator=name)
            for variant, shown in (("clean", images), (f"linf={self.epsilon:g}", moved))
            for name, accepted in _acceptances(victim, judge, truth, shown, labels).items()
        ]

    def _of_others(self, truth: ClassTruth, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return test images, each with a target that it does not show, always the same ones."""
        test, draws = truth.private.test, generator(0)
        images, labels = [], []
        for label in targets.tolist():
            others = test.x[test.y != label].cpu()
            chosen = others[torch.randperm(len(others), generator=draws)[: self.images]]
            images.append(chosen)
            labels.append(torch.full((len(chosen),), label))
        return torch.cat(images), torch.cat(labels)


def _acceptances(
    victim: Classifier, judge: Judge, truth: ClassTruth, images: Tensor, labels: Tensor
) -> Mapping[str, Tensor]:
    probabilities = {"victim": victim.predict_proba(images).cpu(), **answers(truth.evaluators, images)}
    accepted = {name: scores.argmax(1) == labels for name, scores in probabilities.items()}
    verdict = list(accepted.values())[-1]
    return {**accepted, "agreed": verdict & judge.accepts(images, labels)}
