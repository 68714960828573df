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

import torch
from torch import nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.weight_search import WeightSearch
from mibench.nn.stacked import StackedNetworks
from mibench.nn.upsampling_generator import UpsamplingGenerator, overparameterised_width
from mibench.optim.problems import Found, Problems, Sent
from mibench.options import Count, Positive
from mibench.seeding import seeded


class CiNet(WeightSearch):
    """Cosine distance of gradients over the weights of an untrained generator, signed Adam."""

    card = AttackCard(
        name="ci_net",
        title="CI-Net (GION)",
        modalities=("image",),
        year=2023,
        code="https://github.com/czhang024/CI-Net",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
    )

    noise_dim: Count = 128
    """Dimension of each example's noise."""
    width: Count = 32
    """Channels of the generator, doubled until it is over-parameterised."""
    overparameterisation: Positive = 4.0
    """Parameters per pixel of the batch that the generator must exceed."""

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
        found = Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels))
        u = self.noise(view, problems, "noise", view.batch_size, self.noise_dim)
        sent, generators = Sent(view.messages, problems), self.generators(view, problems)
        self.descend(view, labels, sent, generators, u, found, self.steps(self.iterations))
        return self.answer(view, goal, found, labels)
