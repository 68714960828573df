"""Verification rate: the share of reconstructions that a face recognition system would take for the person.

The standard test of face verification (Huang et al., LFW, 2007; thresholds at a stated rate of false accepts, as in
access control): two pictures show one person where their embeddings, here those of
:mod:`mibench.nn.mobilefacenet`, are nearer than a threshold. A reconstruction passes for its class where it is nearer
than the threshold to some private picture of the person. The pictures are the held-out ones, which neither the victim
nor the evaluation models were trained on (``held_out``), or where a class has none the training images (``train``).

The threshold lets ``false_accepts`` of all pairs (private training image, other private person) pass: it is calibrated
on the very data of the cell, since crops and pixels move it, and with as many pictures per person as the test uses.
Four yardsticks tell how to read the rate: ``threshold``, a cosine distance as in
:mod:`mibench.metrics.face_distance`; ``true_accepts``, the share of real training images that pass for their person,
which no attack can be expected to exceed; ``false_accepts``, as calibrated; and ``strangers``, the share of pairs
(public image, private person) that pass, on people that took no part in the calibration. Where true accepts are
rare, the embedding cannot read these images, and a low rate is no safety.

Images are enlarged bilinearly to the network's 112x96 pixels, which the variant says (``held_out, from 32 px``).
Missing samples count as failures. Datasets that do not say that they show faces are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.data import Population, evenly
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement
from mibench.metrics.families.faces import OfFaces, enlarged
from mibench.nn.verification import Judge, calibrated
from mibench.options import Count, Share
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class VerificationRate(OfFaces):
    """Share of reconstructions accepted as their person, with the threshold and its error rates."""

    card = MetricCard(
        name="verification_rate",
        title="Verification rate",
        modalities=("image",),
        year=2007,
        bib="lfw",
        tasks=("class",),
        higher_is_leakier=True,
        share=True,
        default=False,
        confirms=(("", "true_accepts"),),
    )
    false_accepts: Share = 0.01
    """Share of (training image, person it does not show) that the threshold lets pass."""
    public_images: Count = 512
    """The most public images that strangers are counted on, evenly taken."""

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return hits of shape ``(N,)`` and the yardsticks.

        Raises:
            NotMeasurableError: If the dataset shows no faces, or there is no pair of two people.
            WeightsMissingError: If the embedding's file is not there, or is another than the published one.
        """
        self.require_faces(truth)
        train, test = truth.private.train, truth.private.test
        held_out = bool(torch.isin(train.y, test.y).all())
        gallery, probes = (test, train) if held_out else (train, test)
        try:
            judge = calibrated(Population(gallery, probes), self.false_accepts, self.embed)
        except ValueError as error:
            raise NotMeasurableError(f"The threshold cannot be calibrated: {error}") from error
        hits = (judge.accepts(result.values, result.target.cpu()) & ~result.missing.cpu()).double()
        said = ", ".join(filter(None, ("held_out" if held_out else "train", enlarged(result.values))))
        passed, shown = judge.distances(probes.x) < judge.threshold, probes.y.cpu()
        own = torch.arange(judge.classes) == shown[:, None]
        return [
            Measurement(values=hits, groups=result.target, variant=said, evaluator=self.evaluator),
            self._yardstick("threshold", torch.tensor([judge.threshold**2 / 2]), torch.zeros(1)),
            self._yardstick("true_accepts", passed[own].double(), shown),
            self._yardstick("false_accepts", (passed & ~own).sum(1) / max(1, judge.classes - 1), shown),
            self._strangers(judge, truth),
        ]

    def _strangers(self, judge: Judge, truth: ClassTruth) -> Measurement:
        if truth.public is None:
            none, reason = torch.empty(0), "The dataset has no public images, on which strangers are counted."
            return self._yardstick("strangers", none, none, reason)
        images = evenly(truth.public.x, self.public_images)
        passed = (judge.distances(images) < judge.threshold).double().mean(1)
        return self._yardstick("strangers", passed, torch.arange(len(images)))

    def _yardstick(self, variant: str, values: Tensor, groups: Tensor, reason: str = "") -> Measurement:
        return Measurement(
            values=values, groups=groups, variant=variant, evaluator=self.evaluator, reason=reason, yardstick=True
        )
