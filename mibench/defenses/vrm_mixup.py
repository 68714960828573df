r"""Vicinal augmentation against gradient inversion (Ye et al., Gradient Inversion Attacks, TPAMI 2024).

What is trained on, and what a client's gradient is of, is never an example but one of its vicinity: a mix with a
partner and noise,

.. math:: \tilde x = \lambda x + (1 - \lambda) x_\pi + \sigma n, \quad \lambda \sim \mathrm{Beta}(\alpha, \alpha),
    \quad n \sim \mathcal N(0, I), \qquad L = \lambda \, \mathrm{CE}(f(\tilde x), y) + (1 - \lambda) \,
    \mathrm{CE}(f(\tilde x), y_\pi).

``cutmix`` pastes a box of the partner, whose share of the pixels is :math:`1 - \lambda`, in place of the average;
``gaussian`` adds the noise alone, the vicinity of the first VRM (Chapelle et al., 2000). Mix and labels are drawn
afresh for every batch, so all of this is in the loss, which is the client's too. A batch of one has its partner from
the data that its owner owns (the ``data`` hook takes note of them: in a federated round the client's share), never
from itself. Records are mixed behind the model's encoder, where categories are one-hot; a foreign model of tables,
which encodes inside, gets mixed codes.

Reconstruction: the paper's abstract names vicinal risk minimisation, not the rule; the loss is mixup's (Zhang et al.,
ICLR 2018). The permutation has no fixed points, so that no example is mixed with itself; there is one :math:`\lambda`
for a batch, and nothing keeps it away from 0 or 1 (``alpha`` above 1 does). The authors' code,
https://github.com/MiLab-HITSZ/2023YeGIAnDe (MIT), was not followed and has another rule: its ``mix`` leaves the batch
as it is and appends :math:`-0.8 \, x_i + 0.2 \, x_{i+1}` under the label :math:`y_i`.

What it does not protect from: the mix. An exact inversion gives :math:`\tilde x` back, in which both pictures can be
seen, so read errors against :math:`\tilde x` too; with :math:`\lambda` near 1 that is the picture itself. The attacker
who knows of it searches two images and :math:`\lambda` together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from mibench import training
from mibench.defenses.base import Batch, Defense, DefenseCard, DefenseContext, Examples
from mibench.errors import UserError
from mibench.nn.rectangles import rectangles
from mibench.options import NonNegative


class VrmMixup(Defense):
    """Training on mixtures of examples."""

    card = DefenseCard(
        name="vrm_mixup",
        title="Vicinal mixup",
        modalities=("image", "tabular"),
        year=2024,
        code="https://github.com/MiLab-HITSZ/2023YeGIAnDe",
        fidelity="reconstruction",
        hooks=("data", "training"),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="alpha",
        stronger="higher",
        levels=(0.2, 1.0, 5.0),
    )

    alpha: NonNegative = 1.0
    """Parameter of the Beta distribution of the mixing factor; the larger, the more even are mixes; 0 mixes nothing."""
    sigma: NonNegative = 0.0
    """Standard deviation of the noise, in units of the images' range (of encoded records)."""
    mode: Literal["mixup", "cutmix", "gaussian"] = "mixup"
    """``mixup``, ``cutmix`` (images) or ``gaussian`` (noise alone)."""
    _owned: Examples | None = field(init=False, default=None)

    @property
    def mixes(self) -> bool:
        """Whether examples have partners, and not noise alone."""
        return self.mode != "gaussian" and self.alpha > 0

    def data(self, train: Examples, context: DefenseContext) -> Examples:
        """Return the examples as they are, and remembers what their owner has, for the partners of single ones."""
        self._owned = context.data.train
        return train

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the mixtures with both labels.

        Raises:
            UserError: If there is no partner for a single example, or records are to be cut.
        """
        if not self.mixes and not self.sigma:
            return training.cross_entropy(batch)
        partner = self.partners(Examples(batch.x, batch.y)) if self.mixes else Examples(batch.x, batch.y)
        image = batch.x.dim() == 4
        if self.mode == "cutmix" and not image:
            raise UserError("defense.mode=cutmix pastes boxes of images; set defense.mode=mixup for records.")
        kept = self.kept(batch.x)
        if image:
            logits = batch.model(self.mixed(batch.x, partner.x, kept))
        else:
            with self._behind(batch.model.normalise, kept):
                logits = batch.model(torch.cat([batch.x, partner.x]))
        share = kept.mean()
        mean = batch.objective.mean
        return share * mean(logits, batch.y) + (1 - share) * mean(logits, partner.y)

    def kept(self, x: Tensor) -> Tensor:
        """Return the share of an example that stays in its mix, a scalar; ``(1, 1, H, W)``, 0 or 1, for ``cutmix``."""
        if not self.mixes:
            return torch.ones((), device=x.device)
        share = torch.distributions.Beta(self.alpha, self.alpha).sample().to(x.device)
        if self.mode != "cutmix":
            return share
        height, width = x.shape[2:]
        heights, widths = (((1 - share).sqrt() * side).round()[None] for side in (height, width))
        pasted = rectangles(heights, widths, torch.rand(2, 1, device=x.device), (height, width))
        return (~pasted).to(x.dtype)

    def mixed(self, one: Tensor, other: Tensor, kept: Tensor) -> Tensor:
        """Return the mix of two batches of the same shape, with noise."""
        mix = kept * one + (1 - kept) * other
        return mix + self.sigma * torch.randn_like(mix) if self.sigma else mix

    def partners(self, batch: Examples) -> Examples:
        """Return another example for each one of a batch.

        Raises:
            UserError: If a single example's owner has no other one.
        """
        count = len(batch)
        if count > 1:
            order = torch.randperm(count, device=batch.x.device)
            return batch[torch.empty_like(order).scatter(0, order, order.roll(1))]  # a cycle through all
        if self._owned is None or len(self._owned) < 2:
            raise UserError(
                "defense=vrm_mixup mixes an example with another one of the same owner, who has none here; raise "
                "setting.batch_size or lower setting.clients."
            )
        others = (self._owned.x != batch.x).flatten(1).any(1).to(torch.get_default_dtype())
        return self._owned[torch.multinomial(others, 1)]

    @contextmanager
    def _behind(self, encoder: nn.Module, kept: Tensor) -> Iterator[None]:
        """Make ``encoder`` return the mix of the first half of its rows with the second one."""

        def mix(_module: nn.Module, _inputs: object, encoded: Tensor) -> Tensor:
            one, other = encoded.chunk(2)
            return self.mixed(one, other, kept)

        handle = encoder.register_forward_hook(mix)
        try:
            yield
        finally:
            handle.remove()
