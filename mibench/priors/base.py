"""The contract of a prior: an architecture and its training on public data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mibench.card import PriorCard
from mibench.data import Examples, InputSpec
from mibench.model import LatentPrior
from mibench.seeding import derive, seeded
from mibench.store import Payload
from mibench.victim import Workshop


@dataclass(frozen=True)
class PriorData:
    """Public images and nothing else: the only data type a prior's training accepts.

    Attributes:
        public: The attacker's public examples.
        spec: Facts of the input.
    """

    public: Examples
    spec: InputSpec


class Prior(ABC):
    """A kind of prior. Subclasses have a literal ``card`` and keyword-only hyper-parameters."""

    card: ClassVar[PriorCard]

    @abstractmethod
    def network(self, spec: InputSpec) -> LatentPrior:
        """Returns the untrained networks for images of ``spec.shape``."""

    @abstractmethod
    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Trains the networks in place."""


def trained_prior(
    prior: Prior, config: Mapping[str, Any], data: PriorData, workshop: Workshop, seed: int
) -> LatentPrior:
    """Returns the frozen prior trained on ``data``, from the store where it is there.

    Args:
        prior: The kind.
        config: Its resolved configuration, part of the key.
        data: Public images.
        workshop: Store and device.
        seed: The prior's own seed, shared by all cells unless set.
    """
    key = {
        "prior": dict(config),
        "revision": prior.card.revision,
        "data": data.public.digest(),
        "shape": list(data.spec.shape),
        "mirrored": data.spec.mirrored,
        "seed": seed,
    }

    def network() -> LatentPrior:
        with seeded(derive(seed, "prior", prior.card.name)):
            return prior.network(data.spec).to(workshop.device)

    def build() -> Payload:
        fresh = network()
        public = PriorData(data.public.to(workshop.device), data.spec)
        with seeded(derive(seed, "prior training")):
            prior.train(fresh, public, seed, workshop.device)
        return Payload(fresh.state_dict())

    payload = workshop.store.get("prior", key, build)
    ready = network()
    ready.load_state_dict(dict(payload.tensors))
    return ready.eval().requires_grad_(False)
