r"""SGI: stepwise gradient inversion (Ye et al., High-Fidelity Gradient Inversion in Distributed Learning, AAAI 2024).

**Labels.** A few public images give the penultimate features' statistics: sorted, each image's features at some ranks
hardly differ from image to image. An evolutionary search finds how often each class occurs
(:func:`mibench.optim.label_recovery.evolved_counts`), repeated classes included. It needs many more classes than
examples; with few, set ``label_rule`` to another rule.

**Images.** Gradients of late layers are matched first, and earlier ones join step by step: at step :math:`t` the
distance is

.. math:: 1 - \cos\big(\{m_l \odot \nabla_{\theta_l} L(x, y)\}_{l \geq s_t}, \{m_l \odot g_l\}_{l \geq s_t}\big)

over parameter tensors from the :math:`s_t`-th on, with a fresh random mask :math:`m` in each step that keeps a share of
the entries; total variation is added later, and later still the mismatch of batch-norm statistics, where the attacker
knows any (:func:`mibench.optim.batch_norm_prior.known_statistics`). Adam sees a quantised gradient,

.. math:: 0.8 \, \mathrm{clip}(\mathrm{round}(2 g / \mathrm{median}|g|) / 2, -1, 1) + 0.2 \, \mathrm{sign}(g),

twice that in the first steps; inputs stay in the pixels' box.

Official code: https://github.com/MiLab-HITSZ/2023YeHFGradInv, whose :math:`s_t` for ResNet-34's 110 tensors (100, 90,
... 30, 25) are shares of the depth here; the last two tensors, a classifier's, always count. Deviations: kept is the
iterate of the lowest cosine distance over *all* tensors without a mask, which can be compared from step to step (the
code forgets its record at each change); all starts share a step's mask; count vectors without one of the classes never
survive. Of clients that take several steps the batch-norm statistics are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.optim.batch_norm_prior import known_statistics, of_messages
from mibench.optim.gradient_distance import Gradients, cosine
from mibench.optim.input_space import Pixels
from mibench.optim.label_recovery import LabelRule, evolved_counts, steadiest_ranks
from mibench.optim.problems import Found, Sent
from mibench.optim.regularisers import BatchNormStatistics, batch_variation, statistics_mismatch
from mibench.optim.row_adam import Adam
from mibench.options import Count, CountOrNone, Decay, NonNegative, Portion, Positive, Share

#: Factors of the first batch-norm layers' mismatch.
FIRST_LAYERS = (1.3, 3.0)


class Sgi(GradientSearch):
    """Evolved label counts, then layers joined step by step, under random masks and a quantised gradient."""

    card = AttackCard(
        name="sgi",
        title="Stepwise gradient inversion",
        modalities=("image",),
        year=2024,
        code="https://github.com/MiLab-HITSZ/2023YeHFGradInv",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        needs=("public",),
        uses=("labels", "local_training", "buffers"),
    )
    length = ("iterations", "period", "tv_after", "bn_after", "boost")

    label_rule: LabelRule | Literal["evolution"] = "evolution"
    """``evolution``, or another rule's name; where labels are granted, none."""
    proxies: Count = 40
    """Public images whose features are looked at."""
    ranks: Count = 20
    """Ranks of the sorted features that are compared."""
    population: Count = 20
    """Count vectors that are bred."""
    generations: Count = 200
    """Generations of them."""
    iterations: Count = 15000
    """Steps."""
    lr: Positive = 0.1
    """Step size, in the model's own input space."""
    decay_at: Sequence[Share] = (3 / 8, 5 / 8, 7 / 8)
    """Shares of the steps after which the step size is divided by ten."""
    begin: Decay = 0.9091
    """Share of the parameter tensors that is left out at first."""
    end: Decay = 0.2273
    """Share that is left out to the last."""
    stride: Positive = 0.0909
    """Share that joins at a time."""
    period: Count = 500
    """Steps after which it does."""
    keep_prob: Portion = 0.7
    """Share of the entries that a mask keeps."""
    tv: NonNegative = 5e-3
    """Weight of the total variation."""
    tv_after: CountOrNone = 3000
    """Steps after which it counts."""
    bn: NonNegative = 1e-4
    """Weight of the batch-norm statistics' mismatch."""
    bn_after: CountOrNone = 5000
    """Steps after which it counts."""
    boost: CountOrNone = 100
    """First steps in which the quantised gradient is doubled."""
    restarts: Count = 1
    """Starts per message."""

    def labels(self, view: GradientsView, knowledge: Knowledge) -> Tensor:
        """Return the class ids behind the messages, shape ``(messages, batch)``."""
        if self.label_rule != "evolution" or knowledge.granted("labels"):
            return super().labels(view, knowledge)
        cpu, public = torch.device("cpu"), knowledge.public.x
        chosen = torch.randperm(len(public), generator=self.draws(cpu, "proxies"))[: self.proxies]
        with torch.no_grad(), view.phase("initialise"):
            features = view.model.features(public[chosen.to(public.device)].to(view.device))
        ranks, means = steadiest_ranks(features, self.ranks)
        bred = {"population": self.population, "generations": self.generations}
        return torch.stack([
            evolved_counts(message, view.batch_size, ranks, means, self.draws(cpu, "counts", number), **bred)
            for number, message in enumerate(view.as_gradients())
        ])  # fmt: skip

    def first(self, step: int, tensors: int) -> int:
        """Return the first of ``tensors`` parameter tensors that counts at ``step``."""
        share = max(self.end, self.begin - self.stride * (step // self.period))
        return max(0, min(tensors - 2, round(share * tensors)))

    def mask(self, step: int, message: Gradients, draws: torch.Generator) -> dict[str, Tensor]:
        """Return of every tensor that counts at ``step`` the entries that do, as ones and zeros."""
        counting = list(message.items())[self.first(step, len(message)) :]
        return {
            name: (torch.rand(value.shape, generator=draws, device=value.device) < self.keep_prob).to(value.dtype)
            for name, value in counting
        }

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message."""
        labels, pixels, problems = self.labels(view, knowledge), Pixels.of(view), self.problems(view)
        sent, found = Sent(view.messages, problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, pixels))
        known = known_statistics(view) if self.bn and not view.deltas else []
        step, mask, draws = 0, dict[str, Tensor](), self.draws(view.device, "masks")

        def steps() -> Iterator[int]:
            nonlocal step, mask
            for step in self.steps(self.iterations):
                mask = self.mask(step, view.messages[0], draws)
                yield step

        def masked(gradients: Gradients) -> Gradients:
            return {name: gradients[name] * kept for name, kept in mask.items()}

        def objective(rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            own, images, theirs = problems.message(rows), pixels.to_inputs(u), sent.of(rows)
            compared = bool(known) and step >= self.bn_after
            if compared:
                ours, seen = view.gradients_and(images, labels[own], statistics.read)
            else:
                ours, seen = view.updates(images, labels[own]), []
            loss = cosine(masked(ours), masked(theirs))
            if step >= self.tv_after:
                loss = loss + self.tv * batch_variation(u)
            if compared:
                loss = loss + self.bn * statistics_mismatch(seen, of_messages(known, own), FIRST_LAYERS)
            return loss, cosine(ours, theirs)

        def reshape(gradients: list[Tensor]) -> list[Tensor]:
            return [(2 if step < self.boost else 1) * quantised(gradient) for gradient in gradients]

        start = self.noise(view, problems, "inputs", view.batch_size, *view.spec.shape)
        statistics = BatchNormStatistics(view.model, unbiased=True)
        with statistics if known else nullcontext():
            Adam(self.iterations, self.lr, decay_at=self.decay_at).minimise(
                objective,
                [start],
                found,
                steps(),
                project=lambda rows, moving: [pixels.project(moving[0])],
                reshape=reshape,
            )
        return self.answer(view, goal, found, labels, pixels)


def quantised(gradient: Tensor) -> Tensor:
    """Return every row's gradient in halves of its median size, cut at one, mixed with its sign."""
    size = gradient.flatten(1).abs().median(1).values.reshape(-1, *[1] * (gradient.dim() - 1))
    halves = (2 * gradient / size.clamp_min(torch.finfo(size.dtype).tiny)).round() / 2
    return 0.8 * halves.clamp(-1, 1) + 0.2 * gradient.sign()
