r"""Trainable distributions over latents, one per group, that start at or around the standard normal.

All map noise to draws :math:`z \sim q` by reparametrisation: ``forward(count, draws)`` returns ``count`` draws per
group, ``(groups, count, dim)``, and the divergence :math:`\mathrm{KL}(q \| N(0, I))` of every group, ``(groups,)``,
in closed form where there is one and as the Monte Carlo estimate over those draws elsewhere. Every parameter has one
row per group and groups know nothing of each other, so with the rows of some groups (through
:func:`torch.func.functional_call`) a module is the distributions of those.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mibench.nn.flow import CouplingFlow


class Gaussian(nn.Module):
    r"""A Gaussian with full covariance, :math:`z = m + L \epsilon` with :math:`L` lower triangular.

    :math:`\mathrm{KL} = \tfrac12 (\mathrm{tr}\, L L^T + \|m\|^2 - d - \log \det L L^T)`.

    Args:
        groups: Number of independent distributions.
        dim: Length of a latent.
        device: Where the parameters are.
    """

    def __init__(self, groups: int, dim: int, device: torch.device) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(groups, 1, dim, device=device))
        self.factor = nn.Parameter(torch.eye(dim, device=device).repeat(groups, 1, 1))

    def forward(self, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return draws ``(groups, count, dim)`` and the exact divergence ``(groups,)``."""
        factor, dim = self.factor.tril(), self.mean.shape[2]
        noise = torch.randn(len(factor), count, dim, generator=draws, device=factor.device)
        energy = factor.square().sum((1, 2)) + self.mean.square().sum((1, 2)) - dim
        return self.mean + noise @ factor.mT, energy / 2 - _log_det(factor)


class Mixture(nn.Module):
    r"""A mixture of such Gaussians whose component is chosen by a straight-through Gumbel-softmax.

    A draw is of one component; its gradient reaches the weights as if it were of the softmax's blend of all.

    Args:
        groups: Number of independent distributions.
        dim: Length of a latent.
        components: Gaussians per group.
        draws: Where the initial means come from.
        spread: Standard deviation of the initial means, so that the components are not alike.
    """

    def __init__(self, groups: int, dim: int, components: int, draws: torch.Generator, spread: float = 0.1) -> None:
        super().__init__()
        means = torch.randn(groups, components, dim, generator=draws, device=draws.device)
        self.means = nn.Parameter(spread * means)
        self.factors = nn.Parameter(torch.eye(dim, device=draws.device).repeat(groups, components, 1, 1))
        self.log_weights = nn.Parameter(torch.zeros(groups, components, device=draws.device))

    def forward(self, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return draws ``(groups, count, dim)`` and an estimate of the divergence ``(groups,)``."""
        (groups, components, dim), device = self.means.shape, self.means.device
        uniform = torch.rand(groups, count, components, generator=draws, device=device)
        gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        soft = (self.log_weights[:, None] + gumbel).softmax(2)
        choice = one_hot(soft.argmax(2), components) + soft - soft.detach()
        noise = torch.randn(groups, 1, count, dim, generator=draws, device=device)
        of_each = self.means[:, :, None] + noise @ self.factors.tril().mT
        z = torch.einsum("gnc,gcnd->gnd", choice, of_each)
        return z, (self.log_density(z) - log_normal(z)).mean(1)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the log-density of latents ``(groups, N, dim)``, shape ``(groups, N)``."""
        factors = self.factors.tril()
        away = (z[:, None] - self.means[:, :, None]).mT
        whitened = torch.linalg.solve_triangular(factors, away, upper=False).mT
        of_each = log_normal(whitened) - _log_det(factors)[..., None]
        return (self.log_weights.log_softmax(1)[..., None] + of_each).logsumexp(1)


class Flow(nn.Module):
    r"""A normalising flow; :math:`\log q(f(\epsilon)) = \log N(\epsilon; 0, I) - \log |\det f'(\epsilon)|`.

    Args:
        groups: Number of independent distributions.
        dim: Length of a latent.
        blocks: Couplings.
        width: Hidden units of a coupling's network.
        draws: Where the initial weights come from.
    """

    def __init__(self, groups: int, dim: int, blocks: int, width: int, draws: torch.Generator) -> None:
        super().__init__()
        self.dim = dim
        self.map = CouplingFlow(groups, dim, blocks, width, draws)

    def forward(self, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return draws ``(groups, count, dim)`` and an estimate of the divergence ``(groups,)``."""
        noise = torch.randn(len(self.map.shifts), count, self.dim, generator=draws, device=draws.device)
        z, log_det = self.map(noise)
        return z, (log_normal(noise) - log_det - log_normal(z)).mean(1)


def log_normal(z: Tensor) -> Tensor:
    """Return the standard-normal log-density of vectors ``(..., dim)``, shape ``(...)``."""
    return -(z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi)) / 2


def _log_det(factor: Tensor) -> Tensor:
    """Return the log of the absolute determinant of triangular matrices ``(..., dim, dim)``."""
    return factor.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
