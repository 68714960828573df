r"""A normalising flow of affine couplings over vectors, one per group and all of them evaluated together.

Dinh et al., Density Estimation Using Real NVP, ICLR 2017; the trainable scale and shift before every coupling is the
activation normalisation of Kingma and Dhariwal, Glow, NeurIPS 2018, started at the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Bound of a coupling's log-scale.
LIMIT = 2.0


def bounded(log_scale: Tensor, limit: float = LIMIT) -> Tensor:
    """Return log-scales that stay between ``-limit`` and ``limit``, so that a coupling can be inverted exactly."""
    return limit * torch.tanh(log_scale / limit)


class CouplingFlow(nn.Module):
    r"""An invertible map :math:`z = f(\epsilon)` with a triangular Jacobian in every block.

    A block scales and shifts all entries, shuffles them, and then scales and shifts the second part of them by what a
    small network makes of the first: :math:`z_2 = \epsilon_2 e^{s(\epsilon_1)} + t(\epsilon_1)`, with :math:`s`
    bounded by ``limit``. It starts as the identity, up to the order of the entries.

    Args:
        groups: Number of independent flows.
        dim: Length of the vectors, at least 2.
        blocks: Couplings.
        width: Hidden units of each network.
        draws: Where initial weights and shuffles come from; the shuffles are the same in all groups.
        limit: Bound of a coupling's log-scale.
    """

    shuffles: Tensor

    def __init__(
        self, groups: int, dim: int, blocks: int, width: int, draws: torch.Generator, limit: float = LIMIT
    ) -> None:
        super().__init__()
        self.first, self.limit = dim // 2, limit
        rest, device = dim - dim // 2, draws.device
        self.log_scales = nn.Parameter(torch.zeros(groups, blocks, 1, dim, device=device))
        self.shifts = nn.Parameter(torch.zeros(groups, blocks, 1, dim, device=device))
        inner = torch.randn(groups, blocks, self.first, width, generator=draws, device=device)
        self.inner = nn.Parameter(inner / self.first**0.5)
        self.inner_bias = nn.Parameter(torch.zeros(groups, blocks, 1, width, device=device))
        self.outer = nn.Parameter(torch.zeros(groups, blocks, width, 2 * rest, device=device))
        self.outer_bias = nn.Parameter(torch.zeros(groups, blocks, 1, 2 * rest, device=device))
        shuffles = [torch.randperm(dim, generator=draws, device=device) for _ in range(blocks)]
        self.register_buffer("shuffles", torch.stack(shuffles))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return vectors like ``noise``, ``(groups, N, dim)``, and :math:`\log |\det|`, ``(groups, N)``."""
        z, log_det = noise, noise.new_zeros(noise.shape[:2])
        for block, shuffle in enumerate(self.shuffles):
            z = (z * self.log_scales[:, block].exp() + self.shifts[:, block])[..., shuffle]
            first, second = z[..., : self.first], z[..., self.first :]
            log_scale, shift = self._coupling(first, block)
            z = torch.cat([first, second * log_scale.exp() + shift], 2)
            log_det = log_det + self.log_scales[:, block].sum(2) + log_scale.sum(2)
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Return the noise ``(groups, N, dim)`` that :meth:`forward` maps to ``z``."""
        for block in reversed(range(len(self.shuffles))):
            first, second = z[..., : self.first], z[..., self.first :]
            log_scale, shift = self._coupling(first, block)
            z = torch.cat([first, (second - shift) * (-log_scale).exp()], 2)[..., self.shuffles[block].argsort()]
            z = (z - self.shifts[:, block]) * (-self.log_scales[:, block]).exp()
        return z

    def _coupling(self, first: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Return log-scale and shift of the second part, both ``(groups, N, dim - dim // 2)``."""
        hidden = torch.tanh(first @ self.inner[:, block] + self.inner_bias[:, block])
        log_scale, shift = (hidden @ self.outer[:, block] + self.outer_bias[:, block]).chunk(2, 2)
        return bounded(log_scale, self.limit), shift
