r"""DeepInversion: dreaming to distill (Yin et al., Data-Free Knowledge Transfer via DeepInversion, CVPR 2020).

The attacker owns the target's weights and no data. What the batch-norm layers remember of the training data is the
prior: a whole batch of images, of all classes, descends from noise

.. math:: L(x) = \frac{1}{B} \sum_i \mathrm{CE}(T(x_i), y_i) + \alpha \sum_l w_l \big( \|\mu_l(x) - \hat\mu_l\|_2
    + \|\sigma^2_l(x) - \hat\sigma^2_l\|_2 \big) + \alpha_{tv} R_{tv}(x) + \alpha_2 \frac{1}{B} \sum_i \|x_i\|_2

with Adam. :math:`\mu_l, \sigma^2_l` are the statistics over batch and pixels of what enters batch-norm layer
:math:`l`, with hats what it remembers; :math:`w_1` may be larger than the other weights. :math:`R_{tv}` sums the norms
of the differences to the right, lower and both diagonal neighbours. Every step sees the batch rolled by a random
offset and, where faces may be mirrored, flipped at random. The batch with the lowest loss is the result.

Official code: https://github.com/NVlabs/DeepInversion. The defaults are the paper's for CIFAR-10, whose images are of
the size that is attacked here. Deviations and what is left out:

- Statistics are those of all classes, so the batch must be of all classes too: it is filled with images of the classes
  that the goal leaves out, up to ``batch``, and they are thrown away. Through the statistics the images of a batch
  depend on one another: of this method alone it cannot be otherwise.
- The variable is the pixel less 0.5 over 0.25, for the authors' mean and standard deviation of their data set; it is
  clipped to pixels in [0, 1] after every step, which the authors' script does for ImageNet only.
- The authors mean to keep the best batch, but their scripts keep the last; here it is the best.
- The half-resolution start and the learning-rate schedule of the ImageNet script (a head on flattened features takes
  one size only), and Adaptive DeepInversion, whose student is a model that is distilled meanwhile, not inverted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.errors import IncompatibleCellError
from mibench.optim.descent import adam_descent
from mibench.optim.regularisers import BatchNormStatistics, differences, l2_norm
from mibench.optim.selection import Best
from mibench.options import Count, CountOrNone, NonNegative, Positive

#: Mean and standard deviation that make a pixel the variable of the descent; natural images have about these.
MEAN, SPREAD = 0.5, 0.25


class DeepInversion(ClassSearch):
    """Pixel descent under the statistics that batch-norm layers remember."""

    card = AttackCard(
        name="deepinversion",
        title="DeepInversion",
        modalities=("image",),
        year=2020,
        code="https://github.com/NVlabs/DeepInversion",
        fidelity="official",
        family="output matching",
        task="class",
        access=("white_box",),
    )
    length = ("iterations",)

    iterations: Count = 2000
    """Descent steps."""
    lr: Positive = 0.05
    """Adam's step size, in standard deviations of a pixel."""
    batch: Count = 256
    """Least number of images that descend together."""
    statistics_weight: NonNegative = 10.0
    """Weight of the batch-norm mismatch (the paper's alpha of the features)."""
    first_layer: NonNegative = 1.0
    """Factor of the first batch-norm layer's mismatch; 10 in the authors' ImageNet script."""
    tv_weight: NonNegative = 2.5e-5
    """Weight of the total variation."""
    l2_weight: NonNegative = 0.0
    """Weight of the norm."""
    jitter: CountOrNone = 2
    """Most pixels by which the batch is rolled, either way."""
    flip: bool | None = None
    """Whether the batch is mirrored at random; null: where a mirrored image shows the same class."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class.

        Raises:
            IncompatibleCellError: If the target has no batch-norm layer that remembers statistics.
        """
        wanted = goal.labels.to(view.device)
        labels = filled(wanted, view.spec.classes, self.batch)
        start = torch.randn(
            len(labels), *view.spec.shape, generator=self.draws(view.device, "pixels"), device=view.device
        )
        moves = iter(self._moves(view))
        best = Best()
        with BatchNormStatistics(view.model) as statistics:
            if not statistics.count:
                raise IncompatibleCellError(
                    "Incompatible: attack 'deepinversion' reads what the target's batch-norm layers remember, and this "
                    "target has none; choose one that has (target=cnn)."
                )

            def objective(x: Tensor) -> Tensor:
                right, down, mirrored = next(moves)
                moved = x.roll((down, right), (2, 3))
                moved = moved.flip(3) if mirrored else moved
                losses = self.identify(view, pixels(moved), labels) + self.l2_weight * l2_norm(moved)
                shared = self.statistics_weight * statistics.mismatch((self.first_layer,))
                losses = losses + shared + self.tv_weight * norms_of_differences(moved)
                best.offer([x], losses.mean())
                return losses

            adam_descent(
                [start.clamp(-MEAN / SPREAD, MEAN / SPREAD)],
                objective,
                self.steps(self.iterations),
                lr=self.lr,
                project=lambda variables: [x.clamp(-MEAN / SPREAD, MEAN / SPREAD) for x in variables],
                after=lambda _variables, _losses: self.keep(partial(self._images, best, wanted)),
            )
        return self._images(best, wanted)

    def _moves(self, view: WhiteBoxView) -> list[Sequence[int]]:
        """Return of every step the pixels to roll right and down, and whether to mirror; on the host."""
        host = torch.device("cpu")
        rolls = torch.randint(-self.jitter, self.jitter + 1, (self.iterations, 2), generator=self.draws(host, "rolls"))
        flip = view.spec.mirrored if self.flip is None else self.flip
        flips = torch.randint(0, 1 + flip, (self.iterations, 1), generator=self.draws(host, "flips"))
        moves: list[Sequence[int]] = torch.cat([rolls, flips], 1).tolist()
        return moves

    @staticmethod
    def _images(best: Best, wanted: Tensor) -> Reconstruction:
        """Return the wanted images of the best batch, which are its first."""
        (x,) = best.values
        return Reconstruction(pixels(x[: len(wanted)]).clamp(0, 1), wanted)


def filled(wanted: Tensor, classes: int, least: int) -> Tensor:
    """Return the wanted class ids followed by others, up to ``least``, the least represented classes first."""
    missing = max(0, least - len(wanted))
    counts = torch.bincount(wanted, minlength=classes)
    rounds = torch.arange(missing + 1, device=wanted.device)[:, None] + counts
    order = rounds.flatten().argsort(stable=True)[:missing]
    return torch.cat([wanted, order % classes])


def pixels(x: Tensor) -> Tensor:
    """Return the images that the variables of the descent stand for."""
    return MEAN + SPREAD * x


def norms_of_differences(x: Tensor) -> Tensor:
    """Return the total variation of the whole batch as the authors write it, a scalar."""
    return torch.stack([one.norm() for one in differences(x, diagonals=True)]).sum()
