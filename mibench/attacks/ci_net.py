r"""CI-Net, or GION: gradient inversion through an over-parameterised network (Zhang et al., ICCV 2023).

The structure of a convolutional network is a prior of images even before it is trained. The attacker draws noise
:math:`u` once for every example of the batch, and an untrained generator :math:`G_w` for every message, and searches
the *weights* for which the generated batch has the client's gradient :math:`g`,

.. math:: \min_w 1 - \frac{\langle \nabla_\theta L(G_w(u), y), g \rangle}{\| \nabla_\theta L(G_w(u), y) \| \| g \|}
    + \alpha \, \mathrm{TV}(G_w(u)),

with Adam on the sign of the weights' gradient. The generator is over-parameterised: its channels double from 32 until
it has more than four parameters per pixel of the batch, so that it can make any batch. No data are needed.
Official code: https://github.com/czhang024/CI-Net (1,000 to 30,000 steps, no total variation; the model is a ResNet-18
with sigmoids). Deviations: the tanh is brought to [0, 1], where the code feeds images in [-1, 1] to a model of images
in [0, 1]; spectral norm is left out, which has no effect there (:mod:`mibench.nn.upsampling_generator`); labels are
read off unless they are granted; kept is the image of the lowest distance, not the last.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import GradientSearch
from mibench.card import AttackCard
from mibench.knowledge import Knowledge
from mibench.nn.stacked import StackedNetworks
from mibench.nn.upsampling_generator import UpsamplingGenerator, overparameterised_width
from mibench.optim.gradient_distance import DISTANCES, DistanceName
from mibench.optim.gradient_matching import Adam, Dropping, Found, Problems, Sent
from mibench.optim.label_recovery import check_label_rule
from mibench.optim.regularisers import batch_variation
from mibench.options import Count, NonNegative, Positive
from mibench.seeding import seeded
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceGoal


class CiNet(GradientSearch):
    """Cosine distance of gradients over the weights of an untrained generator, signed Adam.

    Args:
        iterations: Steps.
        lr: Step size, in the generator's weights.
        signed: Whether Adam sees the gradient's sign.
        tv: Weight of the total variation of the images in [0, 1].
        noise_dim: Dimension of each example's noise.
        width: Channels of the generator, doubled until it is over-parameterised.
        overparameterisation: Parameters per pixel of the batch that the generator must exceed.
        distance: ``cosine``, ``layer_cosine`` or ``squared``.
        label_rule: How labels are read off where they are not granted.
        restarts: Generators per message.
        tolerance: Distance below which a message is done.
    """

    card = AttackCard(
        name="ci_net",
        title="CI-Net (GION)",
        modalities=("image",),
        year=2023,
        bib="ci_net",
        code="https://github.com/czhang024/CI-Net",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
    )

    def __init__(
        self,
        *,
        iterations: Count = 5000,
        lr: Positive = 1e-3,
        signed: bool = True,
        tv: NonNegative = 0.0,
        noise_dim: Count = 128,
        width: Count = 32,
        overparameterisation: Positive = 4.0,
        distance: DistanceName = "cosine",
        label_rule: str = "bias_corrected",
        restarts: Count = 1,
        tolerance: NonNegative = 1e-7,
    ) -> None:
        self.descent = Adam(iterations, lr, signed)
        self.tv = tv
        self.noise_dim = noise_dim
        self.width = width
        self.overparameterisation = overparameterisation
        self.distance = DISTANCES[distance]
        self.label_rule = check_label_rule(label_rule)
        self.restarts = restarts
        self.dropping = Dropping(tolerance=tolerance)

    def generators(self, view: GradientsView, problems: Problems) -> StackedNetworks:
        """Return an untrained generator for every problem, each from a draw of its own."""
        shape = view.spec.shape
        width = overparameterised_width(shape, view.batch_size, self.noise_dim, self.width, self.overparameterisation)
        made: list[nn.Module] = []
        for message in range(problems.messages):
            for restart in range(problems.restarts):
                with seeded(self.draws(torch.device("cpu"), "weights", message, restart).initial_seed()):
                    made.append(UpsamplingGenerator(shape, self.noise_dim, width).to(view.device))
        return StackedNetworks(made)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message."""
        labels, problems = self.labels(view, knowledge), self.problems(view)
        assert labels is not None
        found = Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels))
        u = self.noise(view, problems, "noise", view.batch_size, self.noise_dim)
        generators = self.generators(view, problems)
        self.descend(
            view, labels, Sent(view.messages, problems), generators, u, found, self.steps(self.descent.iterations)
        )
        return self.answer(view, goal, found, labels)

    def apart(self, view: GradientsView, images: Tensor, labels: Tensor, sent: dict[str, Tensor]) -> Tensor:
        """Return the distance of every problem from its message, shape ``(n,)``, for images and class ids."""
        return self.distance(view.updates(images, labels), sent)

    def descend(
        self,
        view: GradientsView,
        labels: Tensor,
        sent: Sent,
        generators: StackedNetworks,
        u: Tensor,
        found: Found,
        steps: Iterable[int],
    ) -> None:
        """Search the generators' weights and offer every image to ``found``; the noise ``u`` stays as it is."""

        def objective(rows: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            images = generators(weights, u[rows])
            apart = self.apart(view, images, labels[found.problems.message(rows)], sent.of(rows))
            rough = batch_variation(images)
            return apart + self.tv * rough, apart, images

        self.descent.minimise(objective, generators.weights, found, steps, dropping=self.dropping)
