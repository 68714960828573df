r"""TAG: gradient attack on transformer-based language models (Deng et al., Findings of EMNLP 2021).

The embeddings :math:`u` of a client's texts, and their labels' logits where nobody knows them, are searched so that
their gradient is that of the message. Between gradients :math:`g_l` and :math:`g_l^*` of the :math:`l`-th of :math:`L`
tensors

.. math:: D = \frac{1}{2} \sum_l \|g_l - g_l^*\|_2^2 + \alpha w_l \|g_l - g_l^*\|_1, \qquad
          w_l = \frac{L - l + 1}{L}

so that tensors near the input weigh more (``ramp=linear``; ``flat`` takes :math:`w_l = 1`, ``alpha=0`` is DLG on
embeddings). AdamW (weight decay 0.01) with a warm-up and a linear fall of its step size, gradients of norm 1 at the
most, from small clipped normal embeddings. The answer is, at every position, the token whose embedding has the largest
cosine with the one found. Position embeddings are the model's own business, so that order is found with the words.

The table of embeddings takes no part: its gradient has rows for the very tokens of the batch alone, which would give
the set of words away without a search. ``embedding_rows`` uses that, as a switch of its own.

Read in the implementation of https://github.com/JonasGeiping/breaching, whose defaults these are; the paper has no
code. The baseline that another repository calls TAG (flat, Adam without warm-up, 2,500 steps) finds far less. The
initial scale of the model decides: an untrained one with weights of deviation 0.02 tells nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.optim.input_space import Embeddings, present_tokens
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import Found, Sent
from mibench.optim.row_adam import Adam, norm_at_most
from mibench.options import Count, CountOrNone, NonNegative, Positive


class Tag(GradientSearch):
    """Search of token embeddings under the squared and absolute distance of gradients."""

    card = AttackCard(
        name="tag",
        title="TAG",
        modalities=("text",),
        year=2021,
        code="https://github.com/JonasGeiping/breaching",
        fidelity="reconstruction",
        family="gradient matching",
        task="sequence",
        access=("gradients",),
        uses=("labels", "local_training"),
    )
    length = ("iterations", "warmup")

    iterations: Count = 1000
    """Steps."""
    lr: Positive = 0.05
    """Largest step size."""
    warmup: CountOrNone = 50
    """First steps over which the step size rises."""
    decay: NonNegative = 0.01
    """Weight decay of AdamW."""
    clip: Positive = 1.0
    """Largest norm of a problem's gradient."""
    alpha: NonNegative = 0.1
    """Weight of the absolute distance."""
    ramp: Literal["linear", "flat"] = "linear"
    """Whether tensors near the input weigh more in it."""
    start: Positive = 0.1
    """Deviation of the first embeddings, and their largest size."""
    restarts: Count = 1
    """Starts per message; the one of the lowest distance is returned."""
    label_rule: LabelRule | None = None
    """How labels are read off where they are not granted; null: they are searched with the embeddings."""
    embedding_rows: bool = False
    """Whether only tokens are read off whose embedding has a gradient."""

    def distance_of(self, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
        """Return the distance of every problem, shape ``(n,)``, over the tensors of ``theirs``."""
        total, count = torch.zeros(()), len(theirs)
        for position, (name, sent) in enumerate(theirs.items()):
            apart = (ours[name] - sent).flatten(1)
            weight = (count - position) / count if self.ramp == "linear" else 1.0
            total = total.to(apart) + 0.5 * (apart.square().sum(1) + self.alpha * weight * apart.abs().sum(1))
        return total

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the texts and labels behind every message."""
        known = bool(self.label_rule) or knowledge.granted("labels")
        labels, problems = self.labels(view, knowledge) if known else None, self.problems(view)
        space, soft = Embeddings.of(view, present_tokens(view) if self.embedding_rows else None), view.relaxed()
        sent, found = Sent(soft.messages, problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, space))

        def objective(rows: Tensor, u: Tensor, *logits: Tensor) -> tuple[Tensor, Tensor]:
            y = logits[0].softmax(-1) if labels is None else labels[problems.message(rows)]
            apart = self.distance_of(soft.updates(space.to_inputs(u), y), sent.of(rows))
            return apart, apart

        width = space.table.shape[1]
        noise = self.noise(view, problems, "embeddings", view.batch_size, *view.spec.shape, width)
        starts = [(self.start * noise).clamp(-self.start, self.start)]
        if labels is None:
            starts.append(self.noise(view, problems, "labels", view.batch_size, view.spec.classes))
        descent = Adam(self.iterations, self.lr, warmup=self.warmup, linear=True, decay=self.decay)
        descent.minimise(objective, starts, found, self.steps(self.iterations), reshape=norm_at_most(self.clip))
        return self.answer(view, goal, found, labels, space)
