r"""Crafter: features crafted so that who inverts them finds an average person (Wang et al., NDSS 2024).

S. Wang et al., Crafter: Facial Feature Crafting against Inversion-based Identity Theft on Deep Models. Before a client
sends the features :math:`f_0 = E(x)` of its encoder :math:`E`, it moves them. It holds a generator :math:`G` of public
images, and plays the attacker who searches that generator for what has the features :math:`f`,

.. math:: z^*(f) = \arg\min_z L_{inv}(f, z), \qquad L_{inv} = 2000 \, \| E(G(z)) - f \|^2 / d,

from the guess of an amortiser :math:`A(f)`. A critic :math:`D` learns to tell these inversions from images
:math:`G(z), z \sim N(0, I)` (WGAN-GP), and the features descend

.. math:: 100 \, [ -D(G(z^*(f))) + \beta \, \| f - f_0 \|^2 / d ]

with Adam. The slope goes through the attacker's answer by the implicit function theorem (:func:`hypergradient`), the
inverse of :math:`L_{inv}`'s Hessian being a Neumann series. ``search=latent`` is the paper's z-crafter: it descends the
same in :math:`z` and sends :math:`E(G(z))`, which is cheaper, weaker, and costs more utility.

The release takes the means of all losses over the batch of :math:`N = 128` before any product with :math:`H`. A batch's
Hessian is block-diagonal, so that its series is one of every example by itself with a step of :math:`\alpha / N`: the
term that goes through the attacker's answer is up to :math:`N` times shorter, and a ``beta`` weighs up to :math:`N`
times more. This is ``reduction=mean``, to which the paper's values of ``beta`` belong. With ``reduction=sum`` the step
is :math:`\alpha`; it hides more at the same ``beta``. The lower budgets have it, whose series are too short for the
other: with 12 terms that go through nothing.

A small ``beta`` hides more. ``steps=0`` sends the features as they are. Crafting is dear: of 16x16 digits behind the
first stage of ``cnn``, 64 cost one core a second at ``budget=smoke`` (4 steps), and some hundred times that at the
paper's 450 steps with 120 terms. The lower budgets take larger steps, and hide less.

What it does not protect from: :math:`z^*` is one attacker, and the features still lie near :math:`f_0`. The adaptive
attacker trains a decoder on crafted features, which he gets by sending public images through the client
(``split_decoder``). Labels and whatever else the server is to read stay in the features. It acts where features are
sent (``setting=split``) and needs no training of the model, so it also serves a finished one.

Official code: https://github.com/ShimingWang98/Facial_Feature_Crafting_against_Inversion_based_Identity_Theft.
Deviations: the generator is that of ``wgan_gp``, the critic begins as the one it was trained against and goes on for
every batch anew; a search goes on from the last one's result instead of from :math:`A(f)`; the Neumann series takes a
smaller step for an example where its own would diverge. Inferred: the amortiser (two linear layers, trained on
:math:`E(G(z))`), and optimiser and length of the search.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mibench.defenses.base import Classifier, Defense, DefenseCard, DefenseContext
from mibench.errors import UserError
from mibench.nn.adversarial import gradient_penalty, refuse_oblong, step_along
from mibench.nn.wgan import WganGpNetworks
from mibench.options import Count, CountOrNone, NonNegative, Positive
from mibench.seeding import derive, generator
from mibench.storage.progress import progress

#: Weight of the attacker's distance, to which the step of the Neumann series belongs, and of the loss as a whole.
INVERSION_WEIGHT, WEIGHT = 2000.0, 100.0

#: Images of one step of a critic, and how steep it may be: the penalty's weight, doubled where the penalty is above 1.
JUDGED, PENALTY = 32, 20.0

#: The generator's training: step size, images of a step, critic steps and penalty, those of ``wgan_gp``.
PRIOR_LR, PRIOR_BATCH, PRIOR_CRITIC, PRIOR_PENALTY = 2e-4, 64, 5, 10.0

#: Hessian products by which the largest curvature in a direction is estimated.
POWERS = 3

#: Losses of examples, shape ``(N,)``, for features ``(N, ...)`` and latents ``(N, latent_dim)``.
Losses = Callable[[Tensor, Tensor], Tensor]


class Crafter(Defense):
    """Features that an inversion takes for an average image."""

    card = DefenseCard(
        name="crafter",
        title="Crafter",
        modalities=("image",),
        revision=2,
        year=2024,
        code="https://github.com/ShimingWang98/Facial_Feature_Crafting_against_Inversion_based_Identity_Theft",
        fidelity="reconstruction",
        hooks=("features",),
        affects=("features",),
        strength="beta",
        stronger="lower",
        levels=(10.0, 2.0, 1.0, 0.5),
        adaptive=("setting=split attack=split_decoder",),
    )
    learns_from_public = True

    beta: NonNegative = 1.0
    """Weight of staying near the true features; the smaller, the more is hidden."""
    steps: CountOrNone = 450
    """Steps of the features; 0 sends them as they are."""
    lr: Positive = 0.01
    """Adam's step size of the features."""
    search: Literal["features", "latent"] = "features"
    """Whether ``features`` are moved, or the ``latent`` whose features are sent."""
    inner_steps: Count = 10
    """Steps of the attacker that is played, in every step of the features."""
    inner_lr: Positive = 0.02
    """Adam's step size of that attacker."""
    terms: Count = 120
    """Terms of the Neumann series."""
    term_step: Positive = 1e-3
    """Largest step of the Neumann series (alpha)."""
    reduction: Literal["mean", "sum"] = "mean"
    """How losses are taken over a batch before the series: ``mean``, as in the release, or ``sum``."""
    critic_steps: Count = 10
    """Steps of the critic in every step of the features."""
    critic_lr: Positive = 5e-4
    """Adam's step size of the critic."""
    batch: Count = 128
    """Features that are crafted together, against one critic."""
    latent_dim: Count = 500
    """Dimension of z (500 for 64 pixels a side, 3000 for 128)."""
    width: Count = 64
    """Channels next to the image, of generator and critic."""
    prior_iterations: Count = 11_250
    """Steps of the generator's training."""
    amortiser_iterations: CountOrNone = 2000
    """Steps of the amortiser's training; 0 searches from z = 0."""

    prior: WganGpNetworks | None = field(init=False, default=None, repr=False)
    amortiser: nn.Module | None = field(init=False, default=None, repr=False)
    shape: tuple[int, ...] = field(init=False, default=(), repr=False)
    encoder: nn.Module | None = field(init=False, default=None, repr=False)

    def attach(self, model: Classifier, context: DefenseContext) -> None:
        """Take a frozen copy of the encoder, the client's part of the model."""
        self.encoder = copy.deepcopy(model.client).eval().requires_grad_(False)

    def learn(self, model: Classifier, context: DefenseContext) -> None:
        """Train generator and critic on public images, and the amortiser on the features of generated ones.

        Raises:
            UserError: If there are no public images, or they are not square.
        """
        if not self.steps:
            return
        if context.data.public is None:
            raise UserError("defense=crafter learns a generator from public images, and this dataset has none; give it "
                            "some (image_folder: dataset.public_root=FOLDER or dataset.public_classes=K).")  # fmt: skip
        refuse_oblong("defense=crafter", context.spec)
        draws = generator(derive(context.seed, "crafter"), context.device)
        prior = WganGpNetworks(context.spec.shape, self.latent_dim, self.width).to(context.device)
        adams = prior.optimisers(PRIOR_LR)
        for _ in progress(range(self.prior_iterations), "generator of crafter"):
            prior.round(
                context.data.public.x,
                **adams,
                batch_size=PRIOR_BATCH,
                n_critic=PRIOR_CRITIC,
                penalty=PRIOR_PENALTY,
                flip=context.spec.mirrored,
                draws=draws,
            )
        self.prior, self.shape = prior.eval().requires_grad_(False), context.spec.shape
        self.amortiser = self._train_amortiser(model.client, draws) if self.amortiser_iterations else None

    def _train_amortiser(self, encoder: nn.Module, draws: torch.Generator) -> nn.Module:
        """Return a trained guess of the latent whose image has given features."""
        assert self.prior is not None
        network: nn.Module | None = None
        for _ in progress(range(self.amortiser_iterations), "amortiser of crafter"):
            z = self.prior.sample_latent(PRIOR_BATCH, draws)
            with torch.no_grad():
                features = encoder(self.prior.generate(z)).flatten(1)
            if network is None:
                network = regression(features.shape[1], self.latent_dim).to(features.device)
                adam = torch.optim.Adam(network.parameters(), 1e-3)
            step_along(adam, mse_loss(network(features), z), network)
        assert network is not None
        return network.eval().requires_grad_(False)

    def features(self, features: Tensor) -> Tensor:
        """Return crafted features for those of the encoder ``(N, ...)``."""
        if not self.steps:
            return features
        with torch.enable_grad():
            return torch.cat([self.craft(part.detach()) for part in features.split(self.batch)])

    def craft(self, true: Tensor) -> Tensor:
        """Return crafted features for one batch of true ones ``(N, ...)``."""
        assert self.prior is not None and self.encoder is not None, "it serves once it has learned and met its model"
        prior, encoder = copy.deepcopy(self.prior), self.encoder
        prior.judge.requires_grad_(True)
        adam_d = torch.optim.Adam(prior.judge.parameters(), self.critic_lr, betas=(0.5, 0.999))
        draws = generator(int(torch.randint(2**31, ())), true.device)
        average = prior.generate(prior.sample_latent(JUDGED, draws))

        def distance(features: Tensor, z: Tensor) -> Tensor:
            apart: Tensor = encoder(prior.generate(z)) - features
            return INVERSION_WEIGHT * apart.square().flatten(1).mean(1)

        def loss(features: Tensor, z: Tensor) -> Tensor:
            moved = (features - true).square().flatten(1).mean(1)
            return WEIGHT * (self.beta * moved - prior.critic(prior.generate(z)))

        def judge(z: Tensor) -> None:
            made = prior.generate(z).detach()
            for _ in range(self.critic_steps):
                fake = made[torch.randint(len(made), (JUDGED,), generator=draws, device=made.device)]
                steep = gradient_penalty(prior.critic, average, fake, draws)
                weight = PENALTY * (1 + (steep.detach() > 1))
                step_along(
                    adam_d, prior.critic(fake).mean() - prior.critic(average).mean() + weight * steep, prior.judge
                )

        z = true.new_zeros(len(true), self.latent_dim) if self.amortiser is None else self.amortiser(true.flatten(1))
        features = true.clone()
        moving = z.clone() if self.search == "latent" else features
        adam = torch.optim.Adam([moving], self.lr)
        step = self.term_step / (len(true) if self.reduction == "mean" else 1)
        for _ in range(self.steps):
            if self.search == "features":
                z = invert(distance, features, z, self.inner_steps, self.inner_lr)
                judge(z)
                moving.grad = hypergradient(loss, distance, features, z, step, self.terms)
            else:
                judge(moving)
                z = moving.detach().requires_grad_(True)
                (moving.grad,) = torch.autograd.grad(loss(encoder(prior.generate(z)), z).sum(), z)
            adam.step()
        sent: Tensor = features if self.search == "features" else encoder(prior.generate(moving))
        return sent.detach()

    def state(self) -> dict[str, Tensor]:
        """Return the weights of generator, critic and amortiser, and the images' shape; nothing before they are there.

        The encoder is the model's.
        """
        if self.prior is None:
            return {}
        kept = {"shape": torch.tensor(self.shape)}
        kept |= {f"prior.{name}": value for name, value in self.prior.state_dict().items()}
        if self.amortiser is not None:
            kept |= {f"amortiser.{name}": value for name, value in self.amortiser.state_dict().items()}
        return kept

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the networks back."""
        if not state:
            return

        def filled(network: nn.Module, name: str) -> nn.Module:
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            network.load_state_dict(own)
            return network.to(state["shape"].device).eval().requires_grad_(False)

        self.shape = tuple(state["shape"].tolist())
        self.prior = WganGpNetworks(self.shape, self.latent_dim, self.width)
        filled(self.prior, "prior")
        if (first := state.get("amortiser.1.weight")) is not None:
            self.amortiser = filled(regression(first.shape[1], self.latent_dim), "amortiser")


def regression(features: int, latent_dim: int) -> nn.Sequential:
    """Return an untrained network from flat features to latents."""
    units = max(128, latent_dim)
    return nn.Sequential(
        nn.BatchNorm1d(features, affine=False), nn.Linear(features, units), nn.ReLU(), nn.Linear(units, latent_dim)
    )


def invert(distance: Losses, features: Tensor, z: Tensor, steps: int, lr: float) -> Tensor:
    """Return the latents after ``steps`` of Adam along the slope of ``distance`` at fixed ``features``."""
    z = z.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([z], lr)
    for _ in range(steps):
        (z.grad,) = torch.autograd.grad(distance(features, z).sum(), z)
        adam.step()
    return z.detach()


def hypergradient(loss: Losses, inner: Losses, features: Tensor, z: Tensor, step: float, terms: int) -> Tensor:
    r"""Return the slope of :math:`L(f, z^*(f))` in the features, where :math:`z^*(f)` minimises the inner losses.

    .. math:: \partial_f L - (\partial_f \partial_z L_{inv}) \, H^{-1} \, \partial_z L,
        \qquad H^{-1} v \approx \alpha \sum_{k < K} (1 - \alpha H)^k v

    The series needs :math:`\alpha \lambda_{max} < 2`. For an example where a few products with :math:`H` find more
    curvature than that allows, the step is one over it.

    Args:
        loss: L, of every example by itself.
        inner: The losses of which ``z`` is the minimum, likewise.
        features: f, shape ``(N, ...)``.
        z: The minimum for them, shape ``(N, latent_dim)``.
        step: :math:`\alpha`.
        terms: K.
    """
    features, z = features.detach().requires_grad_(True), z.detach().requires_grad_(True)
    direct, pull = torch.autograd.grad(loss(features, z).sum(), (features, z))
    (slope,) = torch.autograd.grad(inner(features, z).sum(), z, create_graph=True)

    def curved(v: Tensor) -> Tensor:
        product: Tensor
        (product,) = torch.autograd.grad(slope, z, v, retain_graph=True)
        return product

    v = pull
    for _ in range(POWERS):
        v = curved(v / v.norm(dim=1, keepdim=True).clamp_min(1e-30))
    own = (1 / v.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(step)
    term, total = pull, pull
    for _ in range(terms - 1):
        term = term - own * curved(term)
        total = total + term
    (through,) = torch.autograd.grad(slope, features, own * total)
    return direct - through
