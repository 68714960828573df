r"""DGC: deep gradient compression (Lin et al., Deep Gradient Compression, ICLR 2018).

A client shares only the largest entries of what it has accumulated and keeps the rest for later rounds. Per tensor,
with gradient :math:`g`, momentum :math:`u` and residual :math:`v` of this client:

.. math:: u \leftarrow m u + g, \quad v \leftarrow v + u, \quad \text{send } v_i \text{ where } |v_i| \ge \theta,

then :math:`v_i` and (momentum factor masking) :math:`u_i` become 0 where they were sent. The threshold :math:`\theta`
is that of the top share ``ratio`` of a strided sample of :math:`|v|`, lowered by 0.8 at most ten times while fewer
than 0.8 of the wanted :math:`k = \lceil n \cdot \mathrm{ratio} \rceil` entries pass, and replaced by an exact choice
where more than :math:`k` do. During ``warmup`` rounds :math:`W` the share is :math:`\mathrm{ratio}^{(t+1)/(W+1)}`.
Vectors (biases, norms) are sent as they are. Optional local clipping bounds the gradient's norm by ``clip`` /
:math:`\sqrt{\text{clients}}` beforehand.

It is a compression method, not a privacy mechanism: what is sent is exact. In round 0 nothing has been accumulated
yet; ``setting.rounds`` attacks a later round.

Official code: https://github.com/synxlin/deep-gradient-compression. Deviations: warm-up counts rounds, not epochs;
where between :math:`k` and :math:`1.3 k` entries pass, the largest :math:`k` are taken, not the first; the server
adds no momentum for the vectors; a dense tensor with zeros stands for the pairs of index and value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mibench.defenses.base import Client, Defense, DefenseCard, Update
from mibench.optim.differential_privacy import clipped
from mibench.options import CountOrNone, Decay, Portion, Positive
from mibench.seeding import derive, generator

#: The count of entries above the threshold may fall to this share of the wanted one; the threshold falls by as much.
LOWER = 0.8

#: How often the threshold is lowered.
ADAPTATIONS = 10


class Dgc(Defense):
    """Sparse updates with momentum correction and error feedback."""

    card = DefenseCard(
        name="dgc",
        title="Deep gradient compression",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2018,
        code="https://github.com/synxlin/deep-gradient-compression",
        fidelity="official",
        hooks=("update",),
        affects=("gradients",),
        strength="ratio",
        stronger="lower",
        adaptive=("setting=federated attack=inverting_gradients attack.mask_sent=true",),
    )

    ratio: Portion = 0.001
    """Share of the entries of each tensor that is sent."""
    momentum: Decay = 0.9
    """Factor of the local momentum."""
    nesterov: bool = False
    """Whether the momentum looks ahead."""
    masking: bool = True
    """Whether the momentum is cleared where it was sent."""
    sample: Portion = 0.01
    """Share of a tensor from which its threshold is estimated."""
    warmup: CountOrNone = 0
    """Rounds over which the share falls from ``ratio ** (1 / (warmup + 1))`` to ``ratio``."""
    clip: Positive | None = None
    """Norm to which the gradient is clipped, divided by the square root of the number of clients; None for not."""

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the sparse update; ``client.state`` keeps ``momentum.<name>`` and ``residual.<name>``."""
        if self.clip is not None:
            gradient = clipped(gradient, self.clip / math.sqrt(client.clients))
        share = self.ratio if client.round >= self.warmup else self.ratio ** ((client.round + 1) / (self.warmup + 1))
        return {name: self._sent(name, value, share, client) for name, value in gradient.items()}

    def _sent(self, name: str, gradient: Tensor, share: float, client: Client) -> Tensor:
        if gradient.dim() <= 1 or share == 1:
            return gradient
        zero = torch.zeros_like(gradient)
        u = client.state.get(f"momentum.{name}", zero)
        v = client.state.get(f"residual.{name}", zero)
        if self.nesterov:
            u = self.momentum * (u + gradient)
            v = v + u + gradient
        else:
            u = self.momentum * u + gradient
            v = v + u
        mask = largest(v, share, self.sample, derive(client.seed, "sample", name))
        client.state[f"momentum.{name}"] = torch.where(mask, zero, u) if self.masking else u
        client.state[f"residual.{name}"] = torch.where(mask, zero, v)
        return torch.where(mask, v, zero)


def largest(values: Tensor, share: float, sample: float, seed: int) -> Tensor:
    """Return where the largest magnitudes of ``values`` stand: a mask with at most ``ceil(n * share)`` entries.

    Args:
        values: A tensor of n entries.
        share: Share of the entries wanted.
        sample: Share from which the threshold is estimated; at least ``2 / share`` entries are taken.
        seed: Seed of the sample's first entry.
    """
    importance = values.abs().flatten()
    wanted = math.ceil(len(importance) * share)
    stride = max(1, len(importance) // max(math.ceil(len(importance) * sample), math.ceil(2 / share)))
    start = int(torch.randint(stride, (), generator=generator(seed)))
    sampled = importance[start::stride]
    threshold = sampled.topk(math.ceil(len(sampled) * share)).values[-1]
    for _ in range(ADAPTATIONS):
        if int((importance >= threshold).sum()) >= LOWER * wanted:
            break
        threshold = threshold * LOWER
    passed = torch.nonzero(importance >= threshold).flatten()
    if len(passed) > wanted:
        passed = passed[importance[passed].topk(wanted).indices]
    mask = torch.zeros_like(importance, dtype=torch.bool)
    mask[passed] = True
    return mask.reshape(values.shape)
