r"""Ensemble inversion: one generator for several models of the same people.

Wang and Kurz, Reconstructing Training Data from Diverse ML Models by Ensemble Inversion, WACV 2022. The attacker owns
the weights of :math:`M` models that tell the same people (entities) apart: the victim :math:`T_1` and its companions.
What fools one of them seldom fools all. A generator :math:`G(z, e)` is trained from scratch on

.. math:: L = \frac{1}{M} \sum_m \big[ \mathrm{CE}(T_m(G), y_m(e)) - a \, \overline{|h_m|} \big]
    + b \sum_k \bar p_k \log \bar p_k - g \, D(G)

where :math:`y_m(e)` is entity :math:`e`'s label in model :math:`m` and :math:`h_m` the model's penultimate features:
real inputs excite a network more than noise does. An unconditional :math:`G(z)` is told apart by the models
themselves: each image's entity is the one of the highest mean probability, and the second sum, over the mean
probabilities :math:`\bar p` of batch and ensemble, keeps it from making one entity only. With public images, a critic
:math:`D` of GMI's kind (WGAN-GP) is trained beside :math:`G`; :math:`g = 0` needs none. Of many samples those are
returned whose *lowest* probability over the ensemble is highest. Without companions this is plain inversion of one
model by a generator.

There is no official code. From the abstract: ensemble, sharp predictions, high activations, optional auxiliary data.
Inferred are all formulas (the usual ones of data-free distillation), the networks (GMI's), one critic step for each of
the generator's, the selection and every default. The generator serves all entities, so what comes of one depends on
which others are attacked.

That three models give away more than one is not shown. On digits of 8x8 pixels without public data, the share of
samples that a model outside the ensemble recognises was, for three models, 25, 10 and 3 points above the mean of the
single ones at equal steps (three seeds; three choices of the models; 120 to 150 steps), and 1 point below it after 60.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, Knowledge, Reconstruction
from mibench.errors import IncompatibleCellError
from mibench.nn.adversarial import gradient_penalty, random_images, step_along
from mibench.nn.dcgan import DcganPrior, critic_layers
from mibench.optim.descent import in_chunks
from mibench.optim.identity import cross_entropy
from mibench.optim.selection import best_candidates
from mibench.options import Count, NonNegative, Positive

#: Images that are generated and scored at once where no gradient is needed.
CHUNK = 256

#: Weight of the critic's gradient penalty, as in the prior ``wgan_gp``.
PENALTY = 10.0


class Networks(DcganPrior):
    """The generator and, beside it, a critic.

    Args:
        shape: Image shape ``(C, H, W)``, as :class:`mibench.nn.dcgan.DcganPrior` takes it.
        latent_dim: Dimension of z.
        width: Channels next to the image.
        entities: Number of entities that the generator is told; 0 where it is unconditional.
    """

    name = "emi"

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int, entities: int) -> None:
        super().__init__(shape, latent_dim * (2 if entities else 1), width)
        self.judge = critic_layers(shape[0], width, self.doublings)
        self.initialise()
        self.embedding = nn.Embedding(entities, latent_dim) if entities else None

    @property
    def makers(self) -> nn.ModuleList:
        """The modules of the generator."""
        return super().makers if self.embedding is None else super().makers.append(self.embedding)

    def paint(self, z: Tensor, entities: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of latents ``(N, latent_dim)``, of the given entities where conditional."""
        return self.generate(z if self.embedding is None else torch.cat([z, self.embedding(entities)], 1))

    def critic(self, x: Tensor) -> Tensor:
        """Return the critic's score, shape ``(N,)``."""
        score: Tensor = self.judge(self.native(x))
        return score.flatten(1).mean(1)


class Ensemble:
    """Several models, and which of their classes are whom.

    Args:
        views: The models.
        labels: For each of them the class id of every entity, shape ``(entities,)``.
    """

    def __init__(self, views: Sequence[WhiteBoxView], labels: Sequence[Tensor]) -> None:
        self.views = views
        self.labels = labels

    def probabilities(self, images: Tensor) -> Tensor:
        """Return every model's probabilities of the entities, shape ``(models, N, entities)``."""
        pairs = zip(self.views, self.labels, strict=True)
        return torch.stack([view.logits(images).softmax(1)[:, labels] for view, labels in pairs])

    def loss(self, images: Tensor, entities: Tensor | None, activation: float, balance: float) -> Tensor:
        """Return the loss of a batch without the critic's part, a scalar.

        Args:
            images: Shape ``(N, C, H, W)``.
            entities: Who they are to show, shape ``(N,)``; None lets the models say.
            activation: Weight of the features' mean size.
            balance: Weight of the class balance, which counts where the models say who an image shows.
        """
        logits, features = zip(*(view.logits_and_features(images) for view in self.views), strict=True)
        total = -activation * torch.stack([one.abs().mean() for one in features]).mean()
        if entities is None:
            shares = [one.softmax(1)[:, labels] for one, labels in zip(logits, self.labels, strict=True)]
            mean = torch.stack(shares).mean(0)
            entities = mean.argmax(1)
            total = total + balance * torch.special.entr(mean.mean(0)).sum().neg()
        pairs = zip(logits, self.labels, strict=True)
        return total + torch.stack([cross_entropy(one, labels[entities]).mean() for one, labels in pairs]).mean()


class Emi(Attack[WhiteBoxView, ClassGoal]):
    """A generator trained against the victim and its companions."""

    card = AttackCard(
        name="emi",
        title="Ensemble inversion",
        modalities=("image",),
        year=2022,
        fidelity="reconstruction",
        family="generative",
        task="class",
        access=("white_box",),
        uses=("public", "companions"),
    )
    length = ("iterations",)

    iterations: Count = 5000
    """Generator steps."""
    conditional: bool = True
    """Whether the generator is told whom to show."""
    activation: NonNegative = 0.1
    """Weight of the penultimate features' mean size (a)."""
    balance: NonNegative = 5.0
    """Weight of the class balance (b), which counts where the generator is unconditional."""
    gan_weight: NonNegative = 1.0
    """Weight of the critic (g); 0 uses no public data."""
    candidates: Count = 100
    """Samples per class among which the budget's samples are chosen."""
    batch_size: Count = 128
    """Images per step."""
    lr: Positive = 1e-3
    """Adam's learning rate for both networks."""
    latent_dim: Count = 100
    """Dimension of z."""
    width: Count = 64
    """Channels of both networks next to the image."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        if view.spec.shape[1] != view.spec.shape[2]:
            raise IncompatibleCellError("Incompatible: attack 'emi' needs square images; set dataset.size.")
        views = (view, *knowledge.companions(view))
        known = (
            goal.targets.to(view.device) if self.conditional else torch.arange(view.spec.classes, device=view.device)
        )
        ensemble = Ensemble(views, [known] * len(views))
        made = Networks(view.spec.shape, self.latent_dim, self.width, len(known) * self.conditional).to(view.device)
        self.train(made.train(), ensemble, knowledge, goal)
        with view.phase("select"):
            return self._results(made, goal, ensemble)

    def train(self, made: Networks, ensemble: Ensemble, knowledge: Knowledge, goal: ClassGoal) -> None:
        """Train generator and, where it counts, critic in place."""
        device, known = ensemble.views[0].device, len(ensemble.labels[0])
        draws = self.draws(device, "training")
        adam_g = torch.optim.Adam(made.makers.parameters(), lr=self.lr, betas=(0.5, 0.999))
        adam_d = torch.optim.Adam(made.judge.parameters(), lr=self.lr, betas=(0.5, 0.999))
        for _ in self.steps(self.iterations):
            z = torch.randn(self.batch_size, self.latent_dim, generator=draws, device=device)
            entities = torch.randint(known, (self.batch_size,), generator=draws, device=device)
            images = made.paint(z, entities)
            if self.gan_weight:
                real, fake = random_images(knowledge.public.x, self.batch_size, False, draws), images.detach()
                slope = gradient_penalty(made.critic, real, fake, draws)
                step_along(adam_d, made.critic(fake).mean() - made.critic(real).mean() + PENALTY * slope, made.judge)
            loss = ensemble.loss(images, entities if self.conditional else None, self.activation, self.balance)
            if self.gan_weight:
                loss = loss - self.gan_weight * made.critic(images).mean()
            step_along(adam_g, loss, made.makers)
            self.keep(partial(self._results, made, goal, None))

    @torch.no_grad()
    def _results(self, made: Networks, goal: ClassGoal, ensemble: Ensemble | None) -> Reconstruction:
        """Return of every class the samples of which the least convinced model is surest; without one, the first."""
        made.eval()
        device, count = next(made.parameters()).device, max(self.candidates, goal.samples)
        labels, found = goal.labels.to(device), []
        for place, target in enumerate(goal.targets.tolist()):
            draws = self.draws(device, "samples", target)
            z = torch.randn(count, self.latent_dim, generator=draws, device=device)
            images = in_chunks(made.paint, CHUNK, z, torch.full((count,), place, device=device))
            if ensemble is not None:
                column = place if self.conditional else target
                sure = in_chunks(lambda part, at=column: ensemble.probabilities(part)[..., at].amin(0), CHUNK, images)
                images = images[best_candidates(sure[:, None], goal.samples)[:, 0]]
            found.append(images[: goal.samples])
        return Reconstruction(torch.cat(found), labels)
