r"""Noise on split features (Titcombe et al., Practical Defences Against Model Inversion Attacks, 2021).

The client's part ends in a tanh and sends its output :math:`z \in [-1, 1]` with Laplace noise on every entry,

.. math:: z' = \tanh(f_c(x)) + n, \qquad n \sim \mathrm{Laplace}(0, b),

while the network is trained and when it is served, so that the server's part learns to read noisy features. ``trained``
sets another scale for the training: a larger :math:`b` afterwards needs no training again, at a higher price. A scale
of 0 in both leaves the network as it is, without the tanh.

The noise hides an input from one look at it. It is no differential privacy by itself, and who sees the features of one
input many times (``setting.sends``) averages it away, unless it is ``fixed``: then it is drawn once for each features'
bits and a secret of the client. A decoder trained on noisy features (``split_decoder``, the adaptive attacker) gets
the mean image they allow. In settings without a cut the noise lies behind stage 0 and acts in training only: what
such a model serves has the tanh and no noise.

A model that comes trained (``target=checkpoint``) is served with the noise alone, without the tanh: :math:`b` is then
in units of its own features, which nothing bounds, and its server's part never learned to read noisy ones.

Official code: https://github.com/TTitcombe/Model-Inversion-SplitNN (scales from 0.1 to 5). Its network puts a softmax
before the cross-entropy, which is not done here.
"""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor, nn

from mibench.defenses.base import Batch, Classifier, Defense, DefenseCard, DefenseContext, seed_of
from mibench.errors import UserError
from mibench.optim.differential_privacy import laplace_like
from mibench.options import NonNegative
from mibench.seeding import generator


class SplitNoise(Defense):
    """Laplace noise on features that a tanh bounds."""

    card = DefenseCard(
        name="split_noise",
        title="Noise on split features",
        modalities=("image", "tabular"),
        year=2021,
        code="https://github.com/TTitcombe/Model-Inversion-SplitNN",
        fidelity="official",
        hooks=("architecture", "training", "features"),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="scale",
        stronger="higher",
        levels=(0.1, 0.5, 2.0),
        adaptive=("setting=split attack=split_decoder setting.sends=16",),
        finished=("features",),
    )

    scale: NonNegative = 0.5
    """Scale b of the noise that is served; its variance is 2 b^2."""
    trained: NonNegative | None = None
    """Scale of the noise in training; None for the same."""
    fixed: bool = False
    """Whether the same features always get the same noise."""
    _secret: int = field(init=False, default=0)

    @property
    def training_scale(self) -> float:
        """The scale of the noise in training."""
        return self.scale if self.trained is None else self.trained

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with a tanh behind the client's part.

        Raises:
            UserError: If the target runs as one piece, so that nothing can be put behind a stage.
        """
        if self.scale or self.training_scale:
            model.stages[model.cut or 0].register_forward_hook(bounded)
            if not model.divides(torch.rand(2, *context.spec.shape, generator=generator(0))):
                raise UserError("defense=split_noise acts behind a stage of the target, which this target runs in one "
                                "piece; choose another target.")  # fmt: skip
        return model

    def attach(self, model: Classifier, context: DefenseContext) -> None:
        """Take the client's secret, on which fixed noise depends."""
        self._secret = context.seed

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the server's part on noisy features."""
        features = batch.model.client(batch.x)
        if self.training_scale:
            features = features + self.training_scale * laplace_like(features)
        return batch.objective.mean(batch.model.server(features), batch.y)

    def features(self, features: Tensor) -> Tensor:
        """Return the features ``(N, ...)`` with noise of a new draw, or of a draw that depends on them."""
        if not self.scale:
            return features
        if not self.fixed:
            return features + self.scale * laplace_like(features)
        noise = [laplace_like(one, generator(seed_of(self._secret, one), one.device)) for one in features]
        return features + self.scale * torch.stack(noise)


def bounded(_stage: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Return a stage's output brought to [-1, 1]."""
    return output.tanh()
