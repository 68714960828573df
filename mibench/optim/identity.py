r"""Identity losses: how far logits are from naming the wanted class, one number per sample.

========================  =============================================================  ==========================
name                      formula for logits :math:`l`, class :math:`y`                   source
========================  =============================================================  ==========================
``cross_entropy``         :math:`-l_y + \log \sum_k e^{l_k}`                              GMI, KEDMI, MIRROR
``max_margin``            :math:`-l_y + \max_{k \ne y} l_k`, unbounded below              PLG-MI
``poincare``              hyperbolic distance of :math:`l / \|l\|_1` to the class         PPA, IF-GMI
``logit``                 :math:`-l_y`                                                    LOMMA
========================  =============================================================  ==========================

The gradient of the cross-entropy vanishes where the target is sure; the others' does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

IdentityLoss = Literal["cross_entropy", "max_margin", "poincare", "logit"]

#: PPA's offset of the one-hot target from the border of the ball (Struppek et al., ICML 2022, losses/poincare.py).
OFFSET = 1e-4

#: Least distance of a squared norm from 1, the border of the Poincaré ball, where the loss is infinite.
BORDER = 1e-6


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits ``(N, classes)`` and class ids ``(N,)``, shape ``(N,)``, at least 0."""
    return functional.cross_entropy(logits, labels, reduction="none")


def max_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit less that of the class, shape ``(N,)`` (Yuan et al., AAAI 2023, equation 4)."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - _own(logits, labels)


def poincare(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the Poincaré distance of the l1-normalised logits to the class, shape ``(N,)``, at least 0.

    :math:`\mathrm{arcosh}(1 + 2 \|u - v\|^2 / ((1 - \|u\|^2)(1 - \|v\|^2)))` with :math:`u = l / \|l\|_1` and :math:`v`
    the one-hot class less 1e-4 (Struppek et al., ICML 2022, equation 5). It does not change when the logits are scaled.
    """
    u = logits / logits.abs().sum(1, keepdim=True).clamp_min(1e-12)
    v = functional.one_hot(labels, logits.shape[1]).to(u.dtype).sub(OFFSET).clamp(0, 1)
    apart = (u - v).square().sum(1)
    inside = (1 - u.square().sum(1)).clamp_min(BORDER) * (1 - v.square().sum(1)).clamp_min(BORDER)
    return torch.arccosh((1 + 2 * apart / inside).clamp_min(1 + 1e-7))


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the logit of the class, shape ``(N,)`` (Nguyen et al., CVPR 2023, equation 4)."""
    return -_own(logits, labels)


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return ``-log p`` of the class from probabilities ``(N, classes)``, shape ``(N,)``; a zero counts as 1e-12."""
    return -_own(probabilities, labels).clamp_min(1e-12).log()


def identity_loss(name: IdentityLoss) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss called ``name``, of logits ``(N, classes)`` and class ids ``(N,)``."""
    return {"cross_entropy": cross_entropy, "max_margin": max_margin, "poincare": poincare, "logit": logit}[name]


def _own(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None])[:, 0]
