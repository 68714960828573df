"""No prior: the attacker searches the input space itself."""

from __future__ import annotations

import torch

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.errors import NotGrantedError
from mibench.model import LatentPrior
from mibench.priors.base import Prior, PriorData


class NoPrior(Prior):
    """The absence of a prior."""

    card = PriorCard(name="none", title="No prior", modalities=("image", "text", "tabular", "audio", "graph"))

    def network(self, spec: InputSpec) -> LatentPrior:
        """Always refuses.

        Raises:
            NotGrantedError: There is no prior.
        """
        raise NotGrantedError("The cell has no prior; set prior=wgan_gp.")

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Do nothing."""
