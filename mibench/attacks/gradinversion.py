r"""GradInversion: see through gradients (Yin et al., CVPR 2021).

A batch is recovered with priors on images beside its gradient: what enters the batch-norm layers has statistics that
the attacker knows, and several searches of one batch, each from noise of its own, should agree. The inputs descend

.. math:: L(x) = \frac{\alpha_g}{2} \sum_l \| g_l(x) - g_l \|_2^2 + \alpha_{tv} \mathrm{TV}(x)
    + \frac{\alpha_2}{2} \overline{x^2}
    + \alpha_{bn} \sum_l w_l \big( \| \mu_l(x) - \hat\mu_l \|_2 + \| \sigma^2_l(x) - \hat\sigma^2_l \|_2 \big)
    + \alpha_{group} \overline{(x - E(x_{1 \dots S}))^2}

with Adam (the step size rises over the first steps and then falls along half a cosine), Langevin noise in the gradient
and inputs clamped to the pixels' box. :math:`\mu_l, \sigma^2_l` are the statistics over batch and pixels of what enters
batch-norm layer :math:`l`, and :math:`w_1 = 10`. Labels are read off the lowest entry in every class's row of the last
layer's gradient, which names no class twice. :math:`E` is the mean of a batch's S searches. The search of the lowest
gradient distance is returned.

Statistics with a hat: where clients share their buffers and the attacker is granted them (``setting.share_buffers``,
``knowledge.buffers``), those of the client's own batch. A running buffer moves from :math:`r` to :math:`(1 - m) r + m
s` in a step of momentum m, which is solved for :math:`s`; after several local steps that gives a weighted mean of what
the steps saw. Otherwise the global model's running statistics; of a model that has not trained yet they are 0 and 1 and
say nothing, which is refused.

What the gradient term adds depends on the model, more than the weights of breaching suggest
(``grid=gradinversion_terms``: digits of 8x8 pixels, a ``cnn``, labels known, ten messages, 200 steps, one search):

- Batches of four, statistics of the batch given: the batch-norm term alone, at a weight of the gradient of 1e-30, gets
  about as much as with the default weight, on a young model and on a trained one (claims
  ``gradinversion_statistics_young`` and ``gradinversion_statistics_trained``); a weight a hundred times larger lowers
  it. There the method is its batch-norm term.
- A young model in evaluation mode, ``bn=0 gradient=1``: the gradient lifts the answer above the control, though not
  above the mean of public pictures (claims ``gradinversion_gradient_1`` and ``gradinversion_gradient_4``), and without
  it nothing is left (``gradinversion_no_gradient_1`` and ``gradinversion_no_gradient_4``).

A trained model gives short gradients, of which the squared distance says little
(``grid=gradient_inversion_distances``).

The authors published no code. Weights and both factors of one half are those of the re-implementation in breaching
(https://github.com/JonasGeiping/breaching), which leaves the group term out and whose Langevin noise is 0.01 where the
paper has 0.2; the group's weight and number of searches are recalled. Inferred, or otherwise than in the paper:

- Averages, not sums, in the total variation, the norm and the group term, as in breaching: weights do not depend on
  the size of images. That of the gradient depends on the model.
- Before the mean E is taken, the paper aligns the searches with their plain mean by RANSAC-flow. ``register=phase``
  aligns them by phase correlation, a substitute that finds shifts by whole pixels alone, with the first of them: in
  the mean it would find each search's own part, at no shift. ``none`` takes the plain mean.
- E is that of the searches after the previous step, so that each is a problem of its own within a step.
- Of each search the iterate of the lowest objective is kept, not the last. Differences of parameters, after several
  local steps, are compared as one gradient, divided by steps and step size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.errors import IncompatibleCellError
from mibench.optim.batch_norm_prior import known_statistics, of_messages
from mibench.optim.gradient_distance import squared
from mibench.optim.input_space import Pixels
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import Found, Sent, evaluate
from mibench.optim.regularisers import BatchNormStatistics, batch_variation, statistics_mismatch
from mibench.optim.row_adam import Adam
from mibench.options import Count, CountOrNone, NonNegative, Positive


class GradInversion(GradientSearch):
    """Gradient matching with a batch-norm prior and agreement of several searches."""

    card = AttackCard(
        name="gradinversion",
        title="GradInversion",
        modalities=("image",),
        revision=2,
        year=2021,
        fidelity="reconstruction",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "buffers"),
    )
    length = ("iterations", "warmup")

    iterations: Count = 20000
    """Steps."""
    lr: Positive = 0.1
    """Step size, in the model's own input space."""
    warmup: CountOrNone = 50
    """First steps, over which the step size rises."""
    langevin: NonNegative = 0.01
    """Standard deviation, in step sizes, of the noise added to the gradient."""
    gradient: Positive = 1e-4
    """Weight of the squared distance of gradients."""
    tv: NonNegative = 1e-4
    """Weight of the total variation."""
    l2: NonNegative = 1e-6
    """Weight of the mean square of the inputs."""
    bn: NonNegative = 0.1
    """Weight of the batch-norm statistics' mismatch; 0 does without."""
    first_layer: NonNegative = 10.0
    """Factor of the first batch-norm layer's."""
    group: NonNegative = 0.01
    """Weight of the mean squared distance from the searches' consensus."""
    register: Literal["none", "phase"] = "phase"
    """How searches are aligned for the consensus: ``none``, or ``phase`` correlation."""
    restarts: Count = 8
    """Searches per message (the paper's seeds)."""
    label_rule: LabelRule = "lowest_rows"
    """How labels are read off where they are not granted."""

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message.

        Raises:
            IncompatibleCellError: If the batch-norm prior is asked for and the attacker knows no statistics.
        """
        labels, pixels, problems = self.labels(view, knowledge), Pixels.of(view), self.problems(view)
        sent, found = Sent(as_one_gradient(view), problems), Found(problems)
        known = known_statistics(view) if self.bn else []
        if self.bn and not known:
            raise IncompatibleCellError(
                "Incompatible: attack 'gradinversion' compares batch-norm statistics, and this cell has none to "
                "compare with; choose a target with batch norm (target=resnet20) and let clients share their buffers "
                "(setting.share_buffers=true) or train the model first (setting.pooled_epochs=null), or do without: "
                "attack.bn=0."
            )
        self.keep(lambda: self.answer(view, goal, found, labels, pixels))
        start = self.noise(view, problems, "inputs", view.batch_size, *view.spec.shape)
        agreed = self.consensus(start)

        def terms(rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            own = problems.message(rows)
            gradients, seen = view.gradients_and(pixels.to_inputs(u), labels[own], statistics.read if self.bn else list)
            apart = squared(gradients, sent.of(rows))
            value = 0.5 * self.gradient * apart + 0.5 * self.l2 * u.square().flatten(1).mean(1)
            value = value + self.tv * batch_variation(u)
            value = value + self.group * (u - agreed[own]).square().flatten(1).mean(1)
            if self.bn:
                value = value + self.bn * statistics_mismatch(seen, of_messages(known, own), (self.first_layer,))
            return value, apart

        def objective(rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            value, _ = terms(rows, u)
            return value, value

        def project(_rows: Tensor, moving: Sequence[Tensor]) -> list[Tensor]:
            nonlocal agreed
            boxed = pixels.project(moving[0])
            agreed = self.consensus(boxed)
            return [boxed]

        statistics = BatchNormStatistics(view.model, unbiased=True)
        with statistics if self.bn else nullcontext():
            Adam(self.iterations, self.lr, warmup=self.warmup, cosine=True, langevin=self.langevin).minimise(
                objective,
                [start],
                found,
                self.steps(self.iterations),
                project=project,
                draws=[
                    self.draws(view.device, "langevin", row // self.restarts, row % self.restarts)
                    for row in problems.rows.tolist()
                ],
            )
            with view.phase("select"):
                _, apart, *_ = evaluate(terms, problems.rows, found.values, problems.at_once)
        nearest = Found(problems)
        nearest.offer(problems.rows, found.values, apart)
        return self.answer(view, goal, nearest, labels, pixels)

    def consensus(self, u: Tensor) -> Tensor:
        """Return the group target of every message ``(messages, batch, C, H, W)`` from all searches' inputs."""
        searches: Tensor = u.unflatten(0, (-1, self.restarts))
        if self.register == "phase":
            searches = registered(searches, searches[:, :1])
        return searches.mean(1)


def as_one_gradient(view: GradientsView) -> list[dict[str, Tensor]]:
    """Return the messages as gradients.

    Raises:
        NotGrantedError: If they are differences of parameters, and the attacker does not know how clients train.
    """
    if view.deltas:
        _ = view.known_local
    return view.as_gradients()


def registered(images: Tensor, reference: Tensor) -> Tensor:
    """Return images ``(..., C, H, W)`` shifted, around the edges, to where phase correlation with a reference peaks.

    Args:
        images: The images; each is shifted by whole pixels, all channels alike.
        reference: Of a shape that broadcasts.
    """
    height, width = images.shape[-2:]
    cross = (torch.fft.fft2(reference) * torch.fft.fft2(images).conj()).sum(-3)
    peak = torch.fft.ifft2(cross / cross.abs().clamp_min(1e-12)).real.flatten(-2).argmax(-1)[..., None]
    down = (torch.arange(height, device=images.device) - peak // width) % height
    right = (torch.arange(width, device=images.device) - peak % width) % width
    shifted: Tensor = images.gather(-2, down[..., None, :, None].expand_as(images))
    moved: Tensor = shifted.gather(-1, right[..., None, None, :].expand_as(images))
    return moved
