r"""NoPeek: features decorrelated from inputs (Vepakomma et al., ICDM Workshops 2020).

The network is trained so that the features :math:`z` that a split client sends depend little on the input :math:`x`,

.. math:: L = \mathrm{CE} + \alpha \, \mathrm{dCor}(x, z), \qquad
    \mathrm{dCor}^2 = \frac{\mathrm{mean}(A \circ B)}{\sqrt{\mathrm{mean}(A \circ A) \, \mathrm{mean}(B \circ B)}},

where :math:`A` and :math:`B` are the pairwise Euclidean distances of the inputs and of the features of one batch, each
with its row and column means taken off and its grand mean added (distance correlation, Szekely et al., 2007). It is 1
for a rotated and scaled copy; of independent batches it is not 0 but falls with their size. Where nothing is cut, the
features are stage 0's.

The defense makes the features less of a picture; nothing is drawn and nothing removed on purpose, so whoever trains a
decoder on just these features (``split_decoder``) or holds the client's weights (``split_rmle``) is the adaptive
attacker, and no bound holds against either. A batch of one example (federated learning) has no distances: nothing
changes there.

Official code: https://github.com/tremblerz/nopeek (not read); the range of :math:`\alpha` and the combination with
noise are of Titcombe et al., 2021 (https://github.com/TTitcombe/Model-Inversion-SplitNN), whose code compares squared
distances, which is another statistic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.defenses.base import Batch, Defense, DefenseCard
from mibench.options import NonNegative

#: Floor under what roots are taken of, whose gradients would otherwise be infinite.
FLOOR = 1e-12


class NoPeek(Defense):
    """Training under a penalty on the distance correlation between inputs and split features."""

    card = DefenseCard(
        name="nopeek",
        title="NoPeek",
        modalities=("image",),
        year=2020,
        code="https://github.com/tremblerz/nopeek",
        fidelity="paper",
        hooks=("training",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="alpha",
        stronger="higher",
        levels=(0.1, 0.5, 2.0),
        adaptive=("setting=split attack=split_decoder", "setting=split attack=split_rmle"),
    )

    alpha: NonNegative = 0.5
    """Weight of the distance correlation."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy plus the weighted distance correlation at the cut."""
        features = batch.model.client(batch.x)
        loss = batch.objective.mean(batch.model.server(features), batch.y)
        if not self.alpha or len(batch.x) < 2:
            return loss
        return loss + self.alpha * distance_correlation(batch.x, features)


def distance_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the distance correlation of two batches ``(n, ...)`` of one length, a scalar in [0, 1]."""
    a, b = centred_distances(first), centred_distances(second)
    variances = a.square().mean() * b.square().mean()
    squared = (a * b).mean() / variances.clamp_min(FLOOR**2).sqrt()
    return squared.clamp_min(FLOOR).sqrt()


def centred_distances(values: Tensor) -> Tensor:
    """Return the pairwise Euclidean distances of a batch ``(n, ...)``, doubly centred, ``(n, n)``."""
    flat = values.flatten(1).float()
    distances: Tensor = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    rows = distances - distances.mean(1, keepdim=True)
    return rows - rows.mean(0, keepdim=True)
