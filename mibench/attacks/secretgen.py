r"""SecretGen: recovers what is hidden of a private image, without its label.

Yuan et al., SecretGen: Privacy Recovery on Pre-trained Models via Distribution Discrimination, ECCV 2022; official code
https://github.com/AI-secure/SecretGen (``stage2.py``). The attacker holds the private image but for a hole and an
inpainting generator :math:`N` with a global critic :math:`D_g` and a local one :math:`D_l`, trained on public images,
and may ask the target :math:`T`, or owns it. For each image:

1. *Pseudo-label.* Of ``candidates`` latents :math:`z = \mathrm{clip}(\epsilon, -1, 1)`, :math:`\epsilon \sim N(0, I)`,
   the completions are shown to :math:`T` as they are and with one cell of a ``grid`` x ``grid`` raster cut out (the
   mean public pixel in its place), every cell in turn. The label is the class with the highest mean probability, among
   those that :math:`T` names first for at least one plain completion. What only one cue brings about does not survive.
2. *Selection.* Of the latents whose plain completion :math:`T` takes for that label, the ``tries`` most confident.
3. *Refinement* by Nesterov steps with :math:`z` clipped to :math:`[-1, 1]`, under

   .. math:: -D_l(N(x, z)) - D_g(N(x, z)) + \lambda \, (-\log T_y(N(x, z))),

   where :math:`D_l` sees a new random window at every step. With access to scores alone :math:`\lambda = 0`, there is
   one try, and :math:`T` is not asked again.
4. The try that :math:`T` takes for the label most surely.

Deviations: the authors step along the mean loss of a batch of 64, which is kept as the constant ``batch``, so that no
image's step depends on how many others there are. Where fewer than ``tries`` latents were taken for the label, theirs
are followed by new draws, ours by the candidates that give it the highest probability. The authors keep of several
tries the lowest loss met on the way, we compare the last ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import ScoresView, WhiteBoxView
from mibench.attacks.base import AttackCard, CompletionGoal, Knowledge, Reconstruction
from mibench.attacks.families.latent_descent import BoxedDescent, surest
from mibench.errors import UserError
from mibench.model import InpaintingPrior
from mibench.optim.identity import cross_entropy
from mibench.optim.selection import best_of_each
from mibench.options import Count, CountOrNone, NonNegative, Positive


class SecretGen(BoxedDescent[WhiteBoxView | ScoresView, CompletionGoal]):
    """Completion towards the label that the target gives to many completions."""

    card = AttackCard(
        name="secretgen",
        title="SecretGen",
        modalities=("image",),
        year=2022,
        code="https://github.com/AI-secure/SecretGen",
        fidelity="official",
        family="generative",
        task="completion",
        access=("white_box", "scores"),
        needs=("public", "prior"),
        space="inpainting",
    )

    candidates: Count = 200
    """Latents whose completions the target is asked of."""
    grid: CountOrNone = 4
    """Cells per side of the raster of which one is cut out; 0 shows the plain completion alone."""
    tries: Count = 1
    """Latents that are refined, where the target's weights are there; at most ``candidates``."""
    lr: Positive = 0.01
    """Step size."""
    identity_weight: NonNegative = 100.0
    """Weight of the label's negative log-likelihood (lambda)."""
    batch: Count = 64
    """Number of images whose mean loss the authors step along; an image's gradient is divided by it."""

    def __post_init__(self) -> None:
        """Refuse more tries than there are candidates."""
        super().__post_init__()
        if self.tries > self.candidates:
            raise UserError(
                f"Expected attack.tries to be at most attack.candidates={self.candidates}, but got {self.tries}."
            )

    def reconstruct(
        self, view: WhiteBoxView | ScoresView, knowledge: Knowledge, goal: CompletionGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return every image completed, with the label that was found for it."""
        prior = knowledge.prior
        assert isinstance(prior, InpaintingPrior)
        goal = goal.to(view.device)
        scores = view.narrow() if isinstance(view, WhiteBoxView) else view
        cutout = knowledge.public.x.mean((0, 2, 3), keepdim=True).to(view.device)
        with view.phase("initialise"):
            latents, plain, mean = self.candidates_of(scores, prior, goal, cutout)
        labels = pseudo_label(plain, mean)
        if isinstance(view, ScoresView):
            z = self.refined(prior, goal, selected(latents, plain, labels, 1), labels, None)
        else:
            z = selected(latents, plain, labels, self.tries)
            z = self._surest(view, prior, goal, self.refined(prior, goal, z, labels, view), labels)
        return completed(prior, goal, z, labels)

    @torch.no_grad()
    def candidates_of(
        self, scores: ScoresView, prior: InpaintingPrior, goal: CompletionGoal, cutout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return candidates and what the target says of them.

        Args:
            scores: The target.
            prior: The generator.
            goal: The masked images.
            cutout: What a cell that is cut out becomes, shape ``(1, C, 1, 1)``.

        Returns:
            Latents ``(N, candidates, latent_dim)``, the probabilities of the plain completions ``(N, candidates,
            classes)``, and the mean over candidates of those of plain and cut completions together ``(N, classes)``.
        """
        draws = self.draws(scores.device, "latents")
        cells = raster(self.grid, goal.images)
        latents: list[Tensor] = []
        plain: list[Tensor] = []
        mean = torch.zeros((), device=scores.device)
        for _ in self.steps(self.candidates, "candidates"):
            z = prior.sample_latent(len(goal.images), draws).clamp(-1, 1)
            if not latents:
                self.keep(partial(completed, prior, goal, z, None))
            images = prior.fill(goal.images, goal.hole, z)
            shown = [images, *(torch.where(cell, cutout, images) for cell in cells)]
            answers = torch.stack([scores.query(each) for each in shown])
            latents.append(z)
            plain.append(answers[0])
            mean = mean + answers.mean(0) / self.candidates
        return torch.stack(latents, 1), torch.stack(plain, 1), mean

    def refined(
        self, prior: InpaintingPrior, goal: CompletionGoal, z: Tensor, labels: Tensor, view: WhiteBoxView | None
    ) -> Tensor:
        """Return latents after the descent, an image's tries side by side; without a view under the critics alone."""
        tries = len(z) // len(labels)
        images, wanted = goal.images.repeat_interleave(tries, 0), labels.repeat_interleave(tries)
        windows = self.draws(torch.device("cpu"), "windows")

        def loss(z: Tensor) -> Tensor:
            filled = prior.fill(images, goal.hole, z)
            realism = prior.realism(filled, windows)
            if view is None:
                return -realism
            return self.identity_weight * cross_entropy(view.logits(filled), wanted) - realism

        return self.descend(
            z, loss, lambda z: self.keep(partial(completed, prior, goal, z[::tries], labels)), "refinement"
        )

    @torch.no_grad()
    def _surest(
        self, view: WhiteBoxView, prior: InpaintingPrior, goal: CompletionGoal, z: Tensor, labels: Tensor
    ) -> Tensor:
        """Return of each image's tries the one that the target takes for the label most surely."""
        if self.tries == 1:
            return z
        images, wanted = goal.images.repeat_interleave(self.tries, 0), labels.repeat_interleave(self.tries)
        return z[surest(view, prior.fill(images, goal.hole, z), wanted, self.tries)]


def raster(grid: int, images: Tensor) -> Sequence[Tensor]:
    """Return the cells of a ``grid`` x ``grid`` raster over images, each a mask of shape ``(H, W)``."""
    rows, columns = (torch.arange(n, device=images.device) * grid // n for n in images.shape[-2:])
    return [(rows == row)[:, None] & (columns == column) for row in range(grid) for column in range(grid)]


def pseudo_label(plain: Tensor, mean: Tensor) -> Tensor:
    """Return the class with the highest mean probability among those that are first for a plain candidate, ``(N,)``.

    Args:
        plain: Probabilities of every plain candidate, shape ``(N, candidates, classes)``.
        mean: Mean probabilities, shape ``(N, classes)``.
    """
    named = torch.zeros_like(mean, dtype=torch.bool).scatter(1, plain.argmax(2), True)
    return mean.masked_fill(~named, -1.0).argmax(1)


def selected(latents: Tensor, plain: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the ``count`` latents of each image that the target takes for its label most surely.

    Args:
        latents: Shape ``(N, candidates, latent_dim)``.
        plain: Probabilities of their completions, shape ``(N, candidates, classes)``.
        labels: Class ids ``(N,)``.
        count: At most the number of candidates.

    Returns:
        Shape ``(N * count, latent_dim)``, those of one image side by side; candidates of another class come last.
    """
    sure = plain.gather(2, labels[:, None, None].expand(-1, plain.shape[1], 1))[:, :, 0]
    sure = sure + (plain.argmax(2) == labels[:, None])
    return latents.flatten(0, 1)[best_of_each(sure.flatten(), len(labels), count)]


@torch.no_grad()
def completed(prior: InpaintingPrior, goal: CompletionGoal, z: Tensor, labels: Tensor | None) -> Reconstruction:
    """Return the goal's images, completed with one latent each."""
    return Reconstruction(prior.fill(goal.images, goal.hole, z), goal.target, labels)
