r"""Perturbed confidences: against a surrogate of the attacker's network, by private noise, or by plain noise.

For the model's answer :math:`p` to an input :math:`x` one of three rules proposes an answer :math:`q`:

- ``adversarial``: with a surrogate inversion network :math:`I`, trained on the defender's own data, ``steps`` times
  :math:`q \leftarrow q + \eta \, \mathrm{sign} \, \nabla_q \|I(q) - x\|^2`, clipped at 0 and divided by its sum.
- ``laplace``: noise of the Laplace mechanism for score vectors, :math:`\mathrm{Lap}(2 / \epsilon_{dp})` (two score
  vectors differ by at most 2 in sum), clipped at a small number, sorted into the order of :math:`p`, and divided by its
  sum: the idea of Ye et al. (One Parameter Defense, IEEE TIFS 2022). The order is that of the true scores, so no
  guarantee of differential privacy is claimed, and none stands in the rows.
- ``gaussian``: noise :math:`N(0, \sigma^2)`, clipped at 0 and divided by its sum.

In ``adversarial`` and ``gaussian`` the true label and the largest entry then change places where they differ. The
service answers the point on the way from :math:`p` to :math:`q` whose distance from :math:`p`, the sum of absolute
changes, is at most ``epsilon``. So labels are not affected, and 0 leaves the answer as it is.

Noise depends on a secret number and on the very bits of the input, so that asking the same again gains nothing,
whoever asks. It does not protect from an attacker who asks near-duplicates and averages (the adaptive attacker), nor
from one whose inversion network, which is not the surrogate, is trained on perturbed answers. Saliency maps get noise
too.

There is no official code; ``adversarial`` follows the idea of an unfinished sketch of a public toolbox, from which
nothing but the idea could be taken. Inferred: the surrogate and its training, and the order of the repairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor

from mibench.card import DefenseCard
from mibench.defenses.base import Customer, Defense, DefenseContext, named_below, part_named, seed_of
from mibench.model import Classifier
from mibench.nn.adversarial import step_along
from mibench.nn.scores import LEAST, ScoreInverse, Standard, label_kept
from mibench.options import Count, NonNegative, Positive
from mibench.seeding import generator


class ScoreNoise(Defense):
    """Scores moved by a bounded amount, the label kept."""

    card = DefenseCard(
        name="score_noise",
        title="Score perturbation",
        modalities=("image", "tabular"),
        fidelity="reconstruction",
        hooks=("output",),
        affects=("scores", "explanations"),
        strength="epsilon",
        stronger="higher",
        levels=(0.1, 0.5, 1.0),
        adaptive=("attack=inversion_network knowledge.repeats=8",),
    )

    rule: Literal["adversarial", "laplace", "gaussian"] = "adversarial"
    """What proposes the move: ``adversarial``, ``laplace`` or ``gaussian``."""
    epsilon: NonNegative = 0.5
    """The most that an answer is moved, as the sum of absolute changes; 0 leaves it as it is, 2 is no bound."""
    steps: Count = 5
    """Steps of ``adversarial``."""
    step_size: Positive = 0.01
    """Their size (eta)."""
    budget: Positive = 1.0
    """Epsilon of the Laplace mechanism."""
    sigma: NonNegative = 0.05
    """Deviation of ``gaussian``."""
    iterations: Count = 1000
    """Training steps of the surrogate (Adam, 1e-3, 64 answers each); only for ``adversarial``."""
    secret: int = 0
    """The secret number that noise depends on."""
    surrogate: ScoreInverse | None = field(init=False, default=None)
    standard: Standard | None = field(init=False, default=None)

    def learn(self, model: Classifier, context: DefenseContext) -> None:
        """Train the surrogate on the answers to the defender's own data."""
        if self.rule != "adversarial" or not self.epsilon:
            return
        data = context.data.spare
        standard, scores = Standard.of(data.x), model.predict_proba(data.x)
        wanted = standard(data.x)
        surrogate = ScoreInverse(scores.shape[1], wanted.shape[1]).to(context.device)
        optimizer = torch.optim.Adam(surrogate.parameters(), 1e-3)
        for _ in range(self.iterations):
            rows = torch.randint(len(data), (64,)).to(context.device)
            step_along(optimizer, surrogate.errors(scores[rows], wanted[rows]).mean(), surrogate)
        self.surrogate, self.standard = surrogate.requires_grad_(False), standard

    def answer(self, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the perturbed probabilities ``(N, classes)``, with the most probable class unchanged."""
        if not self.epsilon:
            return probabilities
        label = probabilities.argmax(1, keepdim=True)
        if self.rule == "laplace":
            proposed = self.ordered(x, probabilities)
        elif self.rule == "gaussian":
            proposed = on_simplex(probabilities + self.sigma * self.normal(x, probabilities))
        else:
            proposed = self.misleading(x, probabilities)
        away = label_kept(proposed, label) - probabilities
        moved = away.abs().sum(1, keepdim=True)
        return label_kept(probabilities + away * (self.epsilon / moved.clamp_min(self.epsilon)), label)

    def explain(self, saliency: Tensor, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the map with noise, that of an input always the same, of ``epsilon`` times its sum in all."""
        noise = self.normal(x, saliency.flatten(1)).reshape(saliency.shape)
        sizes = [one.abs().flatten(1).sum(1).reshape(-1, *[1] * (saliency.dim() - 1)) for one in (saliency, noise)]
        return saliency + self.epsilon * noise * sizes[0] / sizes[1].clamp_min(LEAST)

    def misleading(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Return scores at which the surrogate is further from the inputs."""
        assert self.surrogate is not None and self.standard is not None, "learn() or restore() comes first"
        wanted, q = self.standard(x.to(probabilities.device)), probabilities
        with torch.enable_grad():
            for _ in range(self.steps):
                q = q.detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(self.surrogate.errors(q, wanted).sum(), q)
                q = on_simplex(q.detach() + self.step_size * gradient.sign())
        return q

    def ordered(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Return noisy scores in the order of the true ones."""
        uniform = torch.special.ndtr(self.normal(x, probabilities).double()) - 0.5
        noise = -uniform.sign() * torch.log1p(-2 * uniform.abs()) * 2 / self.budget
        values = (probabilities + noise).clamp_min(LEAST).sort(1).values.to(probabilities)
        ranked = torch.zeros_like(values).scatter(1, probabilities.argsort(dim=1, stable=True), values)
        return ranked / ranked.sum(1, keepdim=True)

    def normal(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Return standard-normal noise of the shape of ``probabilities``, that of an input always the same."""
        rows = [torch.randn(probabilities.shape[1], generator=generator(seed_of(self.secret, one))) for one in x]
        return torch.stack(rows).to(probabilities)

    def state(self) -> dict[str, Tensor]:
        """Return the surrogate with what its inputs are standardised by."""
        if self.surrogate is None or self.standard is None:
            return {}
        surrogate, standard = self.surrogate.state_dict(), self.standard.state_dict()
        return named_below("surrogate", surrogate) | named_below("standard", standard)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the surrogate back."""
        if state:
            mean = state["standard.mean"]
            self.standard = Standard(mean, state["standard.deviation"])
            self.surrogate = ScoreInverse(state["surrogate.0.weight"].shape[1], len(mean)).to(mean.device)
            self.surrogate.load_state_dict(part_named("surrogate", state))
            self.surrogate.requires_grad_(False)


def on_simplex(scores: Tensor) -> Tensor:
    """Return scores clipped at 0 and divided by their sum."""
    clipped = scores.clamp_min(0)
    return clipped / clipped.sum(1, keepdim=True).clamp_min(LEAST)
