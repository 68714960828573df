"""The contract of a prior: an architecture and its training on public data."""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.card import PriorCard
from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.model import ClassPrior, LatentPrior
from mibench.nn.adversarial import random_images
from mibench.options import Count, Options
from mibench.pictures import SheetRow, as_pictures, draw_sheet
from mibench.precision import computing, precision_key
from mibench.seeding import derive, generator, seeded
from mibench.storage.checkpoints import Checkpoints
from mibench.storage.store import Payload
from mibench.storage.workshop import Workshop

log = logging.getLogger("mibench")

#: Rows and columns of the picture of a prior's images.
GRID = 8


@dataclass(frozen=True)
class PriorData:
    """What a prior is trained on: public images, and where its card asks for one a view of the victim.

    Attributes:
        public: The attacker's public examples.
        spec: Facts of the input, with the victim's classes.
        view: The victim; None where public data suffice.
        checkpoints: Where an interrupted training goes on from; the loop of a training is its ``steps``.
    """

    public: Examples
    spec: InputSpec
    view: WhiteBoxView | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)


class Prior(Options, ABC):
    """A kind of prior. Subclasses have a literal ``card`` and keyword-only hyper-parameters."""

    card: ClassVar[PriorCard]
    block: ClassVar[str] = "prior"

    #: Whether its networks come with their weights, so that they are used as they are and never trained.
    pretrained: ClassVar[bool] = False

    @abstractmethod
    def network(self, spec: InputSpec) -> LatentPrior:
        """Return the untrained networks for images of ``spec.shape``."""

    @abstractmethod
    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Train the networks in place, in a loop over ``data.checkpoints.steps``, so that it may be killed."""


class ImagePrior(Prior):
    """A prior that is trained on random batches of the public images."""

    batch_size: Count = 64
    """Images per step."""
    flip: bool | None = None
    """Whether public images are mirrored at random; null: where a mirrored image shows the same class."""

    def mirrors(self, data: PriorData) -> bool:
        """Return whether images are mirrored at random."""
        return data.spec.mirrored if self.flip is None else self.flip

    def batch(self, data: PriorData, draws: torch.Generator) -> Tensor:
        """Return random public images of shape ``(batch_size, C, H, W)``."""
        return random_images(data.public.x, self.batch_size, self.mirrors(data), draws)


class RangedPrior(LatentPrior):
    """A prior of inputs in another range than [0, 1], around a network that makes images in [0, 1].

    Args:
        images: The network.
        spec: Facts of the input.
    """

    def __init__(self, images: LatentPrior, spec: InputSpec) -> None:
        super().__init__()
        self.name, self.latent_dim = images.name, images.latent_dim
        self.images = images
        self.spec = spec

    def generate(self, z: Tensor) -> Tensor:
        """Return inputs of shape ``(N, C, H, W)`` in the range of the spec for latents ``(N, latent_dim)``."""
        images = self.images.generate(z)
        return self.spec.boxed(self.spec.low + (self.spec.high - self.spec.low) * images)

    def critic(self, x: Tensor) -> Tensor:
        """Return the realism score of inputs in the range of the spec, shape ``(N,)``."""
        return self.images.critic(self.spec.to_unit(x))

    def sample_latent(self, n: int, generator: torch.Generator) -> Tensor:
        """Return what the network itself draws."""
        return self.images.sample_latent(n, generator)


def is_unit(spec: InputSpec) -> bool:
    """Whether inputs lie in [0, 1], as images do."""
    return (spec.low, spec.high) == (0.0, 1.0)


def adams(lr: float, betas: tuple[float, float], **parts: nn.Module) -> dict[str, torch.optim.Adam]:
    """Return an optimiser of each part by the part's name."""
    return {name: torch.optim.Adam(part.parameters(), lr=lr, betas=betas) for name, part in parts.items()}


def trained_prior(
    prior: Prior, config: Mapping[str, Any], data: PriorData, workshop: Workshop, seed: int
) -> LatentPrior:
    """Return the frozen prior trained on ``data``, from the store where it is there.

    Args:
        prior: The kind.
        config: Its resolved configuration, part of the key.
        data: Public images.
        workshop: Store, device and precision.
        seed: The prior's own seed, shared by all cells unless set.
    """
    store, key = workshop.store, prior_key(prior, config, data, seed, workshop.precision)
    resumed = dataclasses.replace(data, checkpoints=Checkpoints(store.unfinished_path("prior", key)))
    payload = store.get("prior", key, lambda: Payload(train_prior(prior, resumed, workshop, seed)))
    ready = loaded_prior(prior, data.spec, payload.tensors, workshop.device, seed)
    show_prior(prior, ready, data.spec, store.path("prior", key), workshop.device)
    return ready


def prior_key(
    prior: Prior, config: Mapping[str, Any], data: PriorData, seed: int, precision: str = "float32"
) -> dict[str, Any]:
    """Return what identifies a trained prior; the victim of one that asks for it is not in it."""
    return {
        "prior": dict(config),
        "revision": prior.card.revision,
        "data": data.public.digest(),
        "shape": list(data.spec.shape),
        "mirrored": data.spec.mirrored,
        "seed": seed,
        **({} if is_unit(data.spec) else {"range": [data.spec.low, data.spec.high]}),
        **precision_key(precision),
    }


def train_prior(prior: Prior, data: PriorData, workshop: Workshop, seed: int) -> dict[str, Tensor]:
    """Train a prior from its seed on public inputs in [0, 1] and return its weights; none of one with its own."""
    if prior.pretrained:
        return {}
    device = workshop.device
    fresh = _untrained(prior, data.spec, device, seed)
    public = Examples(data.spec.to_unit(data.public.x), data.public.y).to(device)
    # The networks stay as they lie: with the channels last a step of WGAN-GP took as long, within 4 %.
    with seeded(derive(seed, "prior training")), computing(workshop.precision, device):
        prior.train(fresh, dataclasses.replace(data, public=public, spec=_unit(data.spec)), seed, device)
    return fresh.state_dict()


def loaded_prior(
    prior: Prior, spec: InputSpec, weights: Mapping[str, Tensor], device: torch.device, seed: int
) -> LatentPrior:
    """Return the frozen prior with the weights of an earlier training; what it makes is in the range of ``spec``."""
    ready = _untrained(prior, spec, device, seed)
    if not prior.pretrained:
        ready.load_state_dict(dict(weights))
    if not is_unit(spec):
        ready = RangedPrior(ready, spec)
    return ready.eval().requires_grad_(False)


def show_prior(prior: Prior, ready: LatentPrior, spec: InputSpec, folder: Path, device: torch.device) -> None:
    """Draw images of a prior beside its artifact, where that has not been done, and say where.

    Of a class-conditional one every row shows a class, from class 0 on.
    """
    path, draws = folder / "samples.png", generator(derive(0, "samples"), device)
    if path.exists() or not folder.is_dir():  # it may have been deleted meanwhile
        return
    labels = torch.arange(min(GRID, ready.classes) if isinstance(ready, ClassPrior) else GRID, device=device)
    rows = []
    with torch.no_grad():
        for label in labels:
            z = ready.sample_latent(GRID, draws)
            images = ready.generate_class(z, label.expand(GRID)) if isinstance(ready, ClassPrior) else ready.generate(z)
            title = f"class {int(label)}" if isinstance(ready, ClassPrior) else ""
            rows.append(SheetRow(title, [as_pictures(images, spec)]))
    try:
        draw_sheet(path, [""], rows, f"{prior.card.title} ({prior.card.name})")
    except OSError as error:
        log.warning("The prior's images could not be drawn to %s (%s).", path, error.strerror)
    else:
        log.info("prior     %s: its images are shown in %s", prior.card.name, path)


def _unit(spec: InputSpec) -> InputSpec:
    """Return the same facts of inputs in [0, 1]."""
    return spec if is_unit(spec) else dataclasses.replace(spec, low=0.0, high=1.0)


def _untrained(prior: Prior, spec: InputSpec, device: torch.device, seed: int) -> LatentPrior:
    """Return the networks, of images in [0, 1].

    Raises:
        UserError: If inputs have another range, and the prior is searched by more than latents or looks at the victim.
    """
    if not is_unit(spec) and (prior.card.spaces != ("latent",) or prior.card.asks):
        raise UserError(
            f"prior={prior.card.name} makes images in [0, 1], but the inputs here lie in [{spec.low:g}, "
            f"{spec.high:g}]; take prior=wgan_gp."
        )
    with seeded(derive(seed, "prior", prior.card.name)):
        return prior.network(_unit(spec)).to(device)
