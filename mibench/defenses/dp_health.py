r"""A differentially private gradient mechanism for health records (Krall et al., EMBC 2020).

The model is a logistic regression on rows of :math:`\|x\|_2 \le 1`, so that one record's gradient has at most length
:math:`L = 1`. It is trained on disjoint batches of :math:`b` records, in step :math:`t` with size
:math:`\eta_t = 1 / \sqrt t`:

.. math:: w \leftarrow w - \eta_t \Big( \lambda w + \frac{1}{b} \big( \sum_i \nabla \ell_i + z \big) \Big), \qquad
    p(z) \propto \exp(-\tfrac{\epsilon}{2 L} \|z\|_2),

a uniform direction with a Gamma(:math:`d`, :math:`2 L / \epsilon`) length. Replacing one record moves the sum by at
most :math:`2 L`, so a step is :math:`\epsilon`-private, and so is a pass over disjoint batches; ``passes`` of them
compose to ``epsilon``, each with its share. This is pure privacy (:math:`\delta = 0`), whose account is a sum.
``emphasis`` (Mosaic, by the same group) puts more of the noise on the coordinates of sensitive columns: :math:`z` is
multiplied by :math:`c` of mean 1, and its scale by :math:`1 / \min_j c_j`, which the same :math:`\epsilon` costs.

No official code exists; the mechanism is the standard one that the abstracts name, inferred: the Gamma noise, the step
size, the constants. Rows are one-hot categories and standardised numbers with a constant 1, divided by their length
where it is above 1. With more than two classes the weights are those of all but the first, and :math:`L = \sqrt 2`. The
regression takes the place of the cell's target, whose recipe is not used; the baseline ``epsilon=null`` is it without
noise. :math:`\epsilon` does not cover the scales of the numeric columns, taken from the training records without noise.
It bounds what one record gives away; what holds for the whole population (a dose that follows from a gene) is learned,
and so inferred, all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mibench.data import Column
from mibench.defenses.base import Classifier, Defense, DefenseCard, DefenseContext, Training, sensitive_columns
from mibench.errors import UserError
from mibench.optim.differential_privacy import pure_guarantee
from mibench.options import Count, NonNegative, Positive
from mibench.seeding import derive, generator
from mibench.storage.progress import progress


class DpHealth(Defense):
    """A logistic regression trained under noise of a Gamma length."""

    card = DefenseCard(
        name="dp_health",
        title="DP gradient mechanism",
        modalities=("tabular",),
        year=2020,
        fidelity="reconstruction",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "features"),
        strength="epsilon",
        stronger="lower",
        levels=(10.0, 3.0, 1.0, 0.3),
        baselines=(("epsilon", None),),
    )

    epsilon: Positive | None = 1.0
    """The epsilon of the whole training; None trains without noise."""
    passes: Count = 1
    """Passes over the records, which share epsilon."""
    batch_size: Count = 50
    """Records of one step (b)."""
    weight_decay: NonNegative = 1e-3
    """Weight of the l2 penalty (lambda)."""
    emphasis: Positive = 1.0
    """Noise on the coordinates of the sensitive column over that on others."""
    sensitive: str | None = None
    """The sensitive column; needed where ``emphasis`` is not 1."""

    _share: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse an emphasis on no column."""
        super().__post_init__()
        if self.emphasis != 1 and self.sensitive is None:
            raise UserError("defense.emphasis needs a column to put the noise on; set defense.sensitive=COLUMN.")

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return a logistic regression on what the target makes of a record.

        Raises:
            UserError: If the table has no column ``sensitive``.
        """
        example = context.data.train.x[:1].cpu()
        with torch.no_grad():
            width, classes = model.normalise(example).shape[1], model(example).shape[1]
        if self.emphasis != 1:
            self._share = noise_factors(context.spec.columns, str(self.sensitive), self.emphasis)
        return LogisticRegression(model.normalise, width, classes)

    def fit(self, training: Training) -> Classifier:
        """Train the regression from zero; smaller last batches are dropped."""
        model = cast(LogisticRegression, training.model)
        weight = model.head.weight
        share = torch.ones(weight.shape[1]) if self._share is None else self._share
        scale = 0.0 if self.epsilon is None else 2 * model.lipschitz * self.passes / (self.epsilon * float(share.min()))
        share = share.to(weight.device)
        order, draws = (generator(derive(training.seed, use)) for use in ("order", "noise"))
        size = min(self.batch_size, len(training.data))
        batches = [
            rows[first : first + size].to(training.device)
            for rows in (torch.randperm(len(training.data), generator=order) for _ in range(self.passes))
            for first in range(0, len(rows) - size + 1, size)
        ]
        for step, rows in enumerate(progress(batches, training.label), start=1):
            batch = training.data[rows]
            (gradient,) = torch.autograd.grad(model.objective.mean(model(batch.x), batch.y), weight)
            noise = gamma_noise(weight.shape, scale, draws).to(weight.device) * share
            with torch.no_grad():
                weight.sub_(self.weight_decay * weight + gradient + noise / size, alpha=1 / math.sqrt(step))
        return model.eval()

    def facts(self) -> dict[str, float | str]:
        """Return the guarantee (infinity without noise, delta 0) and the passes that share it."""
        return {**pure_guarantee(self.epsilon, "record", "replace"), "passes": self.passes}


class LogisticRegression(Classifier):
    """A multinomial logistic regression on rows of at most unit length; class 0 is the reference.

    Args:
        encoder: Turns an input into a row of numbers.
        width: Length of that row.
        classes: Number of classes.

    Attributes:
        lipschitz: The most length of the gradient of one record's cross-entropy.
    """

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.normalise = encoder
        self.stages = nn.ModuleList([UnitRows()])
        self.head: ReferenceHead = ReferenceHead(width + 1, classes)
        self.lipschitz = 1.0 if classes == 2 else math.sqrt(2)


class UnitRows(nn.Module):
    """Rows with a constant 1, divided by their length where it is above 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return rows ``(N, d + 1)`` for ``(N, d)``."""
        rows = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        scaled: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1)
        return scaled


class ReferenceHead(nn.Module):
    """Linear logits of all classes but the first, whose logit is 0; weights start at zero."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes - 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of rows ``(N, width)``."""
        logits = linear(x, self.weight)
        referred: Tensor = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
        return referred


def gamma_noise(shape: Sequence[int], scale: float, draws: torch.Generator) -> Tensor:
    """Return noise of a uniform direction whose length is Gamma distributed: density as exp(-length / scale)."""
    count = math.prod(shape)
    direction = torch.randn(count, generator=draws)
    length = scale * -torch.log1p(-torch.rand(count, generator=draws)).sum()  # of as many exponentials
    noise: Tensor = (length * direction / direction.norm()).reshape(tuple(shape))
    return noise


def noise_factors(columns: Sequence[Column], sensitive: str, emphasis: float) -> Tensor:
    """Return the factors of the noise of every coordinate, of mean 1; the last is that of the constant.

    Raises:
        UserError: If no column is called ``sensitive``.
    """
    chosen = sensitive_columns(columns, sensitive)
    widths = torch.tensor([*(max(1, len(column.values)) for column in columns), 1])
    factors = torch.tensor([*(emphasis if index in chosen else 1.0 for index in range(len(columns))), 1.0])
    share: Tensor = factors.repeat_interleave(widths)
    return share / share.mean()
