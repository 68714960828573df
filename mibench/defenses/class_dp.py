r"""Class- and subclass-level differential privacy (Zhang et al., Broadening Differential Privacy, IEEE Big Data 2020).

Record-level privacy hides whether one example was there, and model inversion does not ask for that: it asks what a
class looks like. Here neighbouring data sets differ in all examples of one group :math:`G_k`, a class (or, with
``subclasses`` above 1, a k-means cluster inside a class). Every step takes each of the :math:`K` groups with
probability :math:`q`, the mean gradient :math:`g_k` of a batch of each, and

.. math:: \tilde g = \frac{1}{q K} \Big( \sum_k g_k \min(1, C / \|g_k\|_2) + \mathcal N(0, \sigma^2 C^2 I) \Big)

so that replacing a whole class moves the sum by at most :math:`2 C`, where the clipped sum of DP-SGD moves by up to
:math:`2 C` per example of it. The recipe's optimiser steps along :math:`\tilde g`. Opacus accounts by RDP with a group
in the place of a record: :math:`\epsilon` at :math:`\delta` is for adding or removing a group. Batch norm mixes
examples and has no private form: group norm takes its place.

No official code exists, and the text gives the definition alone: clipping per group, the sampling and the account are
inferred. What the guarantee is worth: with few groups and :math:`q = 1` nothing is amplified and :math:`\epsilon` of a
long training is large. It does not cover which classes there are, nor the clusters, which are found without noise, nor
the scales of a table's numeric columns. The default :math:`\sigma = 0.1` is the most at which five classes are still
learned, and no guarantee worth the name; what protects (1 and above) needs hundreds of classes. The baseline
``noise_multiplier=0`` is clipping alone.

There is nothing for an attacker to take into account: the noise is part of the weights, and one who knows of the
defense attacks as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mibench.card import DefenseCard
from mibench.data import Examples
from mibench.defenses.base import Defense, DefenseContext
from mibench.model import Classifier
from mibench.optim.differential_privacy import (
    COMMON_DELTA,
    Unit,
    guarantee,
    rdp_epsilon,
    sum_of_clipped,
    with_gaussian,
    without_batch_norm,
)
from mibench.options import Count, NonNegative, Portion, Positive, Share
from mibench.seeding import derive, generator
from mibench.training import Batch, Training, cross_entropy


class ClassDp(Defense):
    """Training with the clipped gradients of whole classes and Gaussian noise."""

    card = DefenseCard(
        name="class_dp",
        title="Class-level DP",
        modalities=("image", "tabular"),
        year=2020,
        fidelity="reconstruction",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "features"),
        strength="noise_multiplier",
        stronger="higher",
        levels=(0.03, 0.1, 0.3, 1.0),
        baselines=(("noise_multiplier", 0.0),),
    )

    noise_multiplier: NonNegative = 0.1
    """Standard deviation of the noise over ``max_grad_norm`` (sigma)."""
    max_grad_norm: Positive = 1.0
    """Norm to which each group's mean gradient is clipped (C)."""
    sample_rate: Portion = 1.0
    """Probability with which a group takes part in a step (q)."""
    subclasses: Count = 1
    """Clusters into which every class is parted; 1 protects whole classes."""
    delta: Share = 1e-5
    """The delta of the guarantee."""

    _spent: dict[str, float | str] = field(init=False, default_factory=dict, repr=False)

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with group norm in the place of batch norm."""
        return without_batch_norm(model)

    def fit(self, training: Training) -> Classifier:
        """Train the target on the private gradients of sampled groups."""
        groups = self.groups(training.data, training.seed)
        private = _GroupTraining.like(training, groups=groups, sample_rate=self.sample_rate)
        expected = self.sample_rate * len(groups)
        noise = generator(derive(training.seed, "noise"), training.device)

        def loss(batch: Batch) -> Tensor:
            """Have the value of the cross-entropy and the private gradient."""
            parts = zip(batch.x.split(private.sizes), batch.y.split(private.sizes), strict=True)
            total = sum_of_clipped(batch.model, parts if private.sizes else (), self.max_grad_norm)
            step = with_gaussian(total, self.noise_multiplier * self.max_grad_norm, noise)
            parameters = dict(batch.model.named_parameters())
            along = torch.stack([(parameters[name] * value).sum() for name, value in step.items()]).sum() / expected
            with torch.no_grad():
                value = cross_entropy(batch) if private.sizes else torch.zeros_like(along)
            return value + (along - along.detach())

        model = private.run(loss)
        training.curve = private.curve
        steps = private.epochs * private.steps_per_epoch
        epsilon, common = (
            rdp_epsilon(self.noise_multiplier, self.sample_rate, steps, delta) for delta in (self.delta, COMMON_DELTA)
        )
        unit: Unit = "class" if self.subclasses == 1 else "subclass"
        self._spent = {
            **guarantee(epsilon, self.delta, common, "rdp", unit, "add or remove"),
            "groups": len(groups),
        }
        return model

    def groups(self, data: Examples, seed: int) -> list[Tensor]:
        """Return the rows of every class, or of every cluster inside it."""
        x, y = data.x.flatten(1).cpu(), data.y.cpu()
        found = []
        for label in y.unique():
            rows = torch.nonzero(y == label).flatten()
            clusters = _clusters(x[rows], self.subclasses, seed)
            found += [rows[clusters == number] for number in clusters.unique()]
        return found

    def facts(self) -> dict[str, float | str]:
        """Return the guarantee for a group, the number of groups, noise and clipping norm."""
        return {**self._spent, "noise_multiplier": self.noise_multiplier, "max_grad_norm": self.max_grad_norm}


@dataclass(kw_only=True)
class _GroupTraining(Training):
    """The common loop over batches that are made of sampled groups.

    Attributes:
        groups: The rows of every group.
        sample_rate: Probability with which a group takes part.
        sizes: Examples of each group in the batch that was made last.
    """

    groups: Sequence[Tensor]
    sample_rate: float
    sizes: Sequence[int] = ()

    def batches(self) -> Iterator[Examples]:
        draws = generator(derive(self.seed, "order"))
        size = max(1, math.ceil(self.recipe.batch_size / (self.sample_rate * len(self.groups))))
        for _ in range(self.epochs * self.steps_per_epoch):
            taken = torch.rand(len(self.groups), generator=draws) < self.sample_rate
            chosen = [rows for rows, takes in zip(self.groups, taken.tolist(), strict=True) if takes]
            parts = [rows[torch.randperm(len(rows), generator=draws)[:size]] for rows in chosen]
            self.sizes = [len(part) for part in parts]
            yield self.data[torch.cat([torch.zeros(0, dtype=torch.long), *parts]).to(self.device)]


def _clusters(x: Tensor, count: int, seed: int) -> Tensor:
    """Return the k-means cluster of every row of ``x``, shape ``(N,)``."""
    if min(count, len(x)) == 1:
        return torch.zeros(len(x), dtype=torch.long)
    from sklearn.cluster import KMeans

    state = derive(seed, "clusters") % 2**32
    return torch.from_numpy(KMeans(min(count, len(x)), n_init=1, random_state=state).fit_predict(x.numpy())).long()
