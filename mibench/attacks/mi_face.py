r"""MI-Face: model inversion by confidence (Fredrikson et al., CCS 2015).

Fredrikson, Jha and Ristenpart, Model Inversion Attacks that Exploit Confidence Information and Basic Countermeasures.
The attacker owns the target's weights and nothing else. For a class :math:`y` it descends the cost :math:`c(x) = 1 -
p_y(x)` in pixel space,

.. math:: x_i = \mathrm{PROCESS}(x_{i-1} - \lambda \nabla c(x_{i-1})), \qquad i = 1 \ldots \alpha,

stops where :math:`c(x_i) \ge \max(c(x_{i-1}), \ldots, c(x_{i-\beta}))` (no progress) or :math:`p_y(x_i) \ge \gamma`,
and returns the :math:`x_i` of lowest cost. The paper gives :math:`\alpha = 5000, \beta = 100, \gamma = 0.99, \lambda =
0.1`; there is no official code. Deviations: the paper starts from black, which would make all samples of a class the
same image, so every pixel starts from a uniform draw in ``[0, start]`` (``start=0`` is the paper's). PROCESS clips to
[0, 1], as in IBM's Adversarial Robustness Toolbox: an image that reaches :math:`\gamma` outside the range loses it when
it is clipped in the end. Inputs of another range (decibels) descend as if they were scaled to [0, 1]. All samples
descend together, each frozen where its own rule stops it. The gradient of :math:`1 - p_y` vanishes where the target is
sure of another class; ``cost=neg_log_p`` descends :math:`-\log p_y` instead.

``mi_face_denoise`` is the paper's attack on a stacked denoising autoencoder (algorithm 2). It descends in the code
:math:`h` of the autoencoder, and PROCESS at times denoises the image and sharpens it:

.. math:: h \leftarrow \mathrm{encode}(\mathrm{sharpen}(\mathrm{NLMeans}(\mathrm{decode}(h)))).

There the autoencoder is the victim's own first layers, which reveals what private images look like. Here the victim is
any classifier, so the attacker trains the autoencoder on public images and the cost is :math:`1 - p_y(\mathrm{decode}
(h))`; this is a reconstruction of the idea, not of the experiment. Inferred are the training (all layers at once, with
Adam, pixels blackened at random), how often the image is processed and how strongly. Codes start uniformly in ``[0,
start]`` too, all of the range by default: from the paper's origin all samples of a class become the same image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, Knowledge, Reconstruction
from mibench.nn.adversarial import step_along
from mibench.optim.denoising import nl_means, sharpen
from mibench.optim.selection import take_best
from mibench.options import Count, Fraction, NonNegative, Positive, Share
from mibench.precision import computing, widened

#: Public images per training step of the autoencoder, and Adam's learning rate.
BATCH, LR = 64, 3e-3


class MiFace(Attack[WhiteBoxView, ClassGoal]):
    """Gradient descent on the target's confidence, in pixel space."""

    card = AttackCard(
        name="mi_face",
        title="MI-Face",
        modalities=("image", "audio"),
        year=2015,
        fidelity="paper",
        family="output matching",
        task="class",
        access=("white_box",),
    )
    length: ClassVar[tuple[str, ...]] = ("iterations",)

    iterations: Count = 5000
    """The most descent steps (the paper's alpha)."""
    patience: Count = 100
    """Steps without progress after which a sample stops (beta)."""
    confidence: Positive = 0.99
    """Probability of its class at which a sample stops (gamma)."""
    lr: Positive = 0.1
    """Step size (lambda)."""
    cost: Literal["one_minus_p", "neg_log_p"] = "one_minus_p"
    """``one_minus_p`` or ``neg_log_p``."""
    start: Fraction = 0.1
    """Pixels start uniformly in ``[0, start]`` of their range; 0 is the paper's black image."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        labels = goal.labels.to(view.device)
        draws = self.draws(view.device, "latents")
        low, high = self.bounds(view)
        noise = self.start * torch.rand(len(labels), *self.shape(view), generator=draws, device=view.device)
        x, rate = low + (high - low) * noise, self.lr * (high - low) ** 2
        best, best_cost = self.images(x, networks).detach(), torch.full((len(x),), torch.inf, device=view.device)
        recent = torch.full((self.patience, len(x)), torch.inf, device=view.device)
        running = torch.ones(len(x), dtype=torch.bool, device=view.device)
        for step in self.steps(self.iterations + 1):
            x.requires_grad_(True)
            images = self.images(x, networks)
            log_p = view.logits(images).log_softmax(1).gather(1, labels[:, None])[:, 0]
            cost = -log_p if self.cost == "neg_log_p" else 1 - log_p.exp()
            (gradient,) = torch.autograd.grad(cost.sum(), x)
            x, cost, p = x.detach(), cost.detach(), log_p.detach().exp()
            best, best_cost = take_best(best, best_cost, images.detach(), cost)
            self.keep(partial(Reconstruction, best, labels))
            running = running & (p < self.confidence) & (cost < recent.amax(0))
            recent[step % self.patience] = cost
            moved = self.process((x - rate * gradient).clamp(low, high), step, networks)
            x = torch.where(running.reshape(-1, *[1] * (x.dim() - 1)), moved, x)
            if step % self.patience == 0 and not bool(running.any()):
                break
        return Reconstruction(best, labels)

    def shape(self, view: WhiteBoxView) -> tuple[int, ...]:
        """Return the shape of what is descended in, for one sample."""
        return view.spec.shape

    def bounds(self, view: WhiteBoxView) -> tuple[float, float]:
        """Return the range of what is descended in: that of the input."""
        return view.spec.low, view.spec.high

    def images(self, x: Tensor, networks: nn.ModuleDict) -> Tensor:
        """Return the inputs ``(N, C, H, W)`` that ``x`` stands for."""
        return x

    def process(self, x: Tensor, step: int, networks: nn.ModuleDict) -> Tensor:
        """Return ``x``, brought back to its range after a step, as the next step finds it (the paper's PROCESS)."""
        return x


class MiFaceDenoise(MiFace):
    """The same descent among the codes of a denoising autoencoder, whose images are denoised and sharpened at times."""

    card = AttackCard(
        name="mi_face",
        title="MI-Face with a denoising autoencoder",
        modalities=("image",),
        year=2015,
        fidelity="reconstruction",
        family="output matching",
        task="class",
        access=("white_box",),
        needs=("public",),
    )
    length = ("iterations", "training_steps")

    start: Fraction = 1.0
    """Codes start uniformly in ``[0, start]``; 0 is the paper's."""
    every: Count = 10
    """Steps from one denoising to the next."""
    strength: Positive = 0.1
    """Width of the non-local means."""
    amount: NonNegative = 0.5
    """How much is sharpened."""
    hidden: Sequence[Count] = (1000, 300)
    """Units of the autoencoder's layers, from the image inwards; the last are the code."""
    training_steps: Count = 10_000
    """Adam steps of the autoencoder."""
    corruption: Share = 0.3
    """Share of the pixels that are blackened while it learns to restore them."""

    def networks(self, view: WhiteBoxView, knowledge: Knowledge) -> nn.ModuleDict:
        """Return the autoencoder: layers of sigmoid units, from the pixels to the code and back."""
        sizes = [math.prod(view.spec.shape), *self.hidden]
        inwards, outwards = sizes, sizes[::-1]
        encoder = [part for a, b in pairwise(inwards) for part in (nn.Linear(a, b), nn.Sigmoid())]
        decoder = [part for a, b in pairwise(outwards) for part in (nn.Linear(a, b), nn.Sigmoid())]
        return nn.ModuleDict(
            {
                "encoder": nn.Sequential(nn.Flatten(), *encoder),
                "decoder": nn.Sequential(*decoder, nn.Unflatten(1, view.spec.shape)),
            }
        )

    def prepare(self, networks: nn.ModuleDict, view: WhiteBoxView, knowledge: Knowledge) -> None:
        """Train the autoencoder to restore public images."""
        public, draws = knowledge.public.x, self.draws(view.device, "autoencoder")
        adam = torch.optim.Adam(networks.parameters(), lr=LR)
        for _ in self.steps(self.training_steps, "autoencoder"):
            clean = public[torch.randint(len(public), (BATCH,), generator=draws, device=view.device)]
            kept = torch.rand(clean.shape, generator=draws, device=view.device) >= self.corruption
            restored = self.images(networks["encoder"](clean * kept), networks)
            with computing("float32", view.device):  # of probabilities
                step_along(adam, nn.functional.binary_cross_entropy(widened(restored), clean), networks)

    def shape(self, view: WhiteBoxView) -> tuple[int, ...]:
        """Return the shape of a code."""
        return (self.hidden[-1],)

    def bounds(self, view: WhiteBoxView) -> tuple[float, float]:
        """Return the range of a code, whose units are sigmoids."""
        return 0.0, 1.0

    def images(self, x: Tensor, networks: nn.ModuleDict) -> Tensor:
        """Return the decoded images of codes ``(N, hidden)``."""
        images: Tensor = networks["decoder"](x)
        return images

    @torch.no_grad()
    def process(self, x: Tensor, step: int, networks: nn.ModuleDict) -> Tensor:
        """Return the codes; every so often those of their denoised and sharpened images."""
        if (step + 1) % self.every:
            return x
        cleaned = sharpen(nl_means(self.images(x, networks), self.strength), self.amount)
        codes: Tensor = networks["encoder"](cleaned)
        return codes
